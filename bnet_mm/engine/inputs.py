"""Checks what a run needs before anything is built."""

from __future__ import annotations

from collections.abc import Iterator

from mmengine.config import Config

from bnet_mm.checkpoint import is_of_training, read_checkpoint
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.config import pretrained_sources
from bnet_mm.openmmlab.libraries import check_library
from bnet_mm.openmmlab.norm_cfg import check_norms


def check_inputs(cfg: Config, stages: tuple[str, ...]) -> None:
    """Checks packages, norms and checkpoints for the `stages` ('train', 'val', 'test').

    Raises:
        InputError: the first thing that is missing or wrong.
    """
    for entry in ('model', *(f'{stage}_dataloader' for stage in stages)):
        if not cfg.get(entry):
            raise InputError(f'the config has no {entry}')
    check_library(cfg.get('default_scope'))
    check_norms(cfg.get('model'))
    for where, source in weight_sources(cfg):
        if '://' in source:
            continue
        try:
            checkpoint = read_checkpoint(source)
        except InputError as error:
            raise InputError(f'{where}: {error}') from error
        if where == 'resume' and not is_of_training(checkpoint):
            raise InputError(
                f'resume: checkpoint {source} holds no training to resume (optimizer and meta): '
                f'start from its weights with --cfg-options load_from={source}'
            )


def weight_sources(cfg: Config) -> Iterator[tuple[str, str]]:
    """Yields files and URLs of weights in the order of loading, after the entries that name them.

    An entry is a path in the config, or 'resume'.
    """
    yield from pretrained_sources(cfg.get('model'))
    if cfg.get('load_from'):
        yield 'resume' if cfg.get('resume') else 'load_from', cfg.load_from
