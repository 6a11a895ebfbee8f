"""The weights that a run starts from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bnet_mm.checkpoint import adapt, read_checkpoint
from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.errors import InputError
from bnet_study.arms import apply_arm
from bnet_study.nets import build_net

WEIGHTS = 'weights.pth'  # in the folder of a run that ended


def save_weights(net: nn.Module, folder: Path) -> str:
    """Writes a trained network's tensors, and returns a SHA-256 of their names and values.

    Not of the file: torch writes the file's name into it, and what else it likes.
    """
    state = {key: value.detach().cpu() for key, value in net.state_dict().items()}
    write_whole(folder / WEIGHTS, lambda part: torch.save(dict(state_dict=state), part))
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(key.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def start_net(
    config: dict[str, Any], seed: int, classes: int, weights: str | Path | None
) -> nn.Module:
    """Builds a run's network with the weights that it starts from, but for the classifier.

    Args:
        config, seed: of a `Run`.
        classes: of its data.
        weights: the file it starts from, or None.

    Raises:
        InputError: the file does not fit the network.
    """
    net = apply_arm(build_net(config, classes, seed), config['arm'])
    if weights is not None:
        contents = read_checkpoint(weights)
        state = contents.get('state_dict', contents) if isinstance(contents, dict) else None
        if not isinstance(state, dict):
            raise InputError(f'{weights} holds no tensors by name')
        state = {key: value for key, value in state.items() if not key.startswith('fc.')}
        missing, unexpected = net.load_state_dict(adapt(state, net), strict=False)
        missing = [key for key in missing if not key.startswith('fc.')]
        if missing or unexpected:
            raise InputError(
                f'{weights} is not of this network: it lacks {missing[:3]} and has '
                f'{list(unexpected)[:3]}'
            )
    return net
