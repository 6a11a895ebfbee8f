"""Checkpoints: reading and writing them safely, and converting between the names of networks."""

from bnet_mm.checkpoint.contents import Contents, contents_of
from bnet_mm.checkpoint.conversion import Conversion, convert
from bnet_mm.checkpoint.inspection import inspect_checkpoint
from bnet_mm.checkpoint.latest import is_of_training, latest_checkpoint
from bnet_mm.checkpoint.provenance import provenance
from bnet_mm.checkpoint.publishing import publish
from bnet_mm.checkpoint.reading import read_checkpoint
from bnet_mm.checkpoint.verification import verify
from bnet_mm.checkpoint.writing import check_target, write_checkpoint

__all__ = [
    'Contents',
    'Conversion',
    'check_target',
    'contents_of',
    'convert',
    'inspect_checkpoint',
    'is_of_training',
    'latest_checkpoint',
    'provenance',
    'publish',
    'read_checkpoint',
    'verify',
    'write_checkpoint',
]
