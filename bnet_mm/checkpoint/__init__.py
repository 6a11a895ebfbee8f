"""Checkpoints: reading and writing them safely, and translating between the names of networks.

Why a file was refused, in the order in which it passes these modules:

- `reading`: it is missing, cut off or no checkpoint, or could run code.
- `contents`: it has no named tensors, or one that is larger than the file; no averaged copy.
- `prefixes`: nothing is below the prefix that was asked for.
- `layouts`: it has no residual network, or several. (`adapt` goes on without.)
- `adapt`, at load time: its kernels have another size than the model's.
- `architecture`: it lacks tensors or has strange ones, its network is damaged (in the converter) or
  not the model's (at load time).
- `conversion`: it is quantized, or the destination has no such network.
- `verification`: the destination's network does not take its tensors. It compares the outputs of
  both networks with `reference`, which shares no code with the conversion.
- `fitting`: it lacks tensors of the network of a config, or has it several times.
- `loading`: the model is another network's.
- `hub`: a folder or a name on the Hub is none; it lacks a file, or its files are of two networks.
- `writing`: the target exists or cannot be written; `atomic` writes.

`card` describes a published checkpoint, `inspection` examines values, `taken` tells which tensors
of a network are those of a file, and `training` finds the checkpoint to resume from and publishes
one.
"""

from __future__ import annotations

from bnet_mm.checkpoint.adapt import adapt
from bnet_mm.checkpoint.contents import Contents, contents_of
from bnet_mm.checkpoint.conversion import Conversion, convert, provenance
from bnet_mm.checkpoint.fitting import Fit, fit
from bnet_mm.checkpoint.hub import from_pretrained, push_to_hub, save_pretrained
from bnet_mm.checkpoint.inspection import inspect_checkpoint
from bnet_mm.checkpoint.loading import load_state
from bnet_mm.checkpoint.reading import read_checkpoint
from bnet_mm.checkpoint.taken import Taken, taken_from
from bnet_mm.checkpoint.training import is_of_training, latest_checkpoint, publish
from bnet_mm.checkpoint.verification import verify
from bnet_mm.checkpoint.writing import check_target, write_checkpoint

__all__ = [
    'Contents',
    'Conversion',
    'Fit',
    'Taken',
    'adapt',
    'check_target',
    'contents_of',
    'convert',
    'fit',
    'from_pretrained',
    'inspect_checkpoint',
    'is_of_training',
    'latest_checkpoint',
    'load_state',
    'provenance',
    'publish',
    'push_to_hub',
    'read_checkpoint',
    'save_pretrained',
    'taken_from',
    'verify',
    'write_checkpoint',
]
