"""Checkpoint files: reading them safely, and finding the one to go on from."""

from bnet_mm.checkpoint.latest import latest_checkpoint
from bnet_mm.checkpoint.reading import read_checkpoint

__all__ = ['latest_checkpoint', 'read_checkpoint']
