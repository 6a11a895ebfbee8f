"""Looks at the data of a run, and says which file, line, class, mask or video is wrong."""

from bnet_mm.engine.data.after_failure import explain_failure
from bnet_mm.engine.data.before_run import check_data
from bnet_mm.engine.data.hook import DatasetCheckHook

__all__ = ['DatasetCheckHook', 'check_data', 'explain_failure']
