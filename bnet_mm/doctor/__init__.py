"""Looks at a config's built model and optimizer, norm by norm, for what usually goes wrong."""

from bnet_mm.doctor.examination import Examination, NormFacts, examine
from bnet_mm.doctor.tables import as_json, as_rich

__all__ = ['Examination', 'NormFacts', 'as_json', 'as_rich', 'examine']
