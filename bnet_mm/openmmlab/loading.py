"""Names at load time: what a checkpoint calls the tensors, and what the network does."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from bnet_mm.checkpoint import adapt, read_checkpoint


def adapt_on_load(model: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """A pre-hook of `load_state_dict`: gives a checkpoint's tensors the names that `model` has.

    It is on every model with BNET that a registry builds, and on the backbones in it: mmengine
    hands each module only the tensors below its own name, so that a backbone never sees those with
    a 'backbone.' too many or too few.

    Raises:
        InputError: see `bnet_mm.checkpoint.adapt`.
    """
    names = [name for name in state_dict if name.startswith(prefix)]
    own = OrderedDict((name[len(prefix) :], state_dict[name]) for name in names)
    if not prefix and hasattr(state_dict, '_metadata'):
        own._metadata = state_dict._metadata
    adapted = adapt(own, model)
    if list(adapted) == list(own):
        return
    for name in names:
        del state_dict[name]
    state_dict.update({prefix + name: value for name, value in adapted.items()})


def load_from_safetensors(filename: str, map_location: str | torch.device | None) -> dict:
    """Reads a local safetensors file, as mmengine's other loaders read theirs.

    Raises:
        InputError: see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(filename)
    device = map_location or 'cpu'
    state = {name: value.to(device) for name, value in checkpoint['state_dict'].items()}
    return {**checkpoint, 'state_dict': state}
