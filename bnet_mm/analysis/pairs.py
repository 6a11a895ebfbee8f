"""Models on a command line: pairs of a config and a checkpoint; the first is the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from torch import nn

from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import load_model


@dataclass(frozen=True)
class Pair:
    """A trained model, not loaded yet.

    Attributes:
        name: what to call it: of its config, and of its checkpoint where that is not enough.
        config, checkpoint: paths.
        options: entries of the config to change.
    """

    name: str
    config: str
    checkpoint: str
    options: dict | None

    def read_config(self) -> Config:
        """Returns its config, newly read."""
        return load_config(self.config, self.options)

    def load(self) -> nn.Module:
        """Returns the model with its weights, in evaluation mode on the CPU.

        Raises:
            InputError: one of the two cannot be used, or they do not belong together.
        """
        return load_model(self.read_config(), self.checkpoint)[0]


def pairs_of(arguments: Sequence[str], options: dict | None) -> list[Pair]:
    """Returns the models of a command line's CONFIG CHECKPOINT CONFIG CHECKPOINT ...

    Raises:
        InputError: a config has no checkpoint.
    """
    if len(arguments) % 2 or not arguments:
        raise InputError(
            f'models are pairs of CONFIG (a .py file) and CHECKPOINT, got '
            f'{" ".join(arguments) or "none"}'
        )
    configs, checkpoints = arguments[::2], arguments[1::2]
    stems = [Path(config).stem for config in configs]
    pairs: list[Pair] = []
    for stem, config, checkpoint in zip(stems, configs, checkpoints):
        name = stem if stems.count(stem) == 1 else f'{stem}, {Path(checkpoint).stem}'
        if name in (pair.name for pair in pairs):
            name = f'{name} ({len(pairs) + 1})'
        pairs.append(Pair(name, config, checkpoint, options))
    return pairs


def leading_pairs(arguments: Sequence[str], options: dict | None) -> tuple[list[Pair], list[Path]]:
    """Returns the models that a command line begins with, and the images that follow them.

    Raises:
        InputError: it begins with no config, or a config has no checkpoint.
    """
    count = 0
    while arguments[count : count + 1] and arguments[count].endswith('.py'):
        count += 2
    return pairs_of(arguments[:count], options), [Path(a) for a in arguments[count:]]
