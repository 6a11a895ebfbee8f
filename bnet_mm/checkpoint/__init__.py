"""Checkpoints: reading and writing them safely, and translating between the names of networks.

A file on its way to a network, and who refuses what:

1. `reading`: a file that is missing, cut off, no checkpoint, or that could run code.
2. `contents`: one without named tensors, or with tensors larger than the file.
3. `layouts`: one without a residual network whose names are known, or with several.
4. At load time `adapt` gives tensors the model's own names and refuses other kernel sizes, and
   `architecture.check_same` another depth, width, block or stem, and missing tensors.
5. In the converter `architecture.check_complete` refuses what is damaged or incomplete, and
   `conversion` what the destination has no place for.

`verification` proves a conversion with `reference`, which shares no code with it; `inspection`
looks at values; `writing` (with `atomic`) refuses to overwrite; `training` finds the checkpoint to
resume from and publishes.
"""

from bnet_mm.checkpoint.adapt import adapt
from bnet_mm.checkpoint.contents import Contents, contents_of
from bnet_mm.checkpoint.conversion import Conversion, convert, provenance
from bnet_mm.checkpoint.inspection import inspect_checkpoint
from bnet_mm.checkpoint.reading import read_checkpoint
from bnet_mm.checkpoint.training import is_of_training, latest_checkpoint, publish
from bnet_mm.checkpoint.verification import verify
from bnet_mm.checkpoint.writing import check_target, write_checkpoint

__all__ = [
    'Contents',
    'Conversion',
    'adapt',
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
