"""Looks at what a run will need before anything is built, and says what is missing."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from bnet_mm.checkpoint import is_of_training, read_checkpoint
from bnet_mm.engine.data import check_data
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.config import pretrained_sources
from bnet_mm.openmmlab.libraries import check_library
from bnet_mm.openmmlab.norm_cfg import check_norms


def check_inputs(cfg: Config, stages: tuple[str, ...]) -> None:
    """Checks packages, norms, checkpoints and data of the `stages` ('train', 'val', 'test').

    Raises:
        InputError: the first thing that is missing or wrong.
    """
    for entry in ('model', *(f'{stage}_dataloader' for stage in stages)):
        if not cfg.get(entry):
            raise InputError(f'the config has no {entry}')
    check_library(cfg.get('default_scope'))
    check_norms(cfg.get('model'))
    for where, path in _checkpoints(cfg):
        try:
            checkpoint = read_checkpoint(path)
        except InputError as error:
            raise InputError(f'{where}: {error}') from error
        if where == 'resume' and not is_of_training(checkpoint):
            raise InputError(
                f'resume: checkpoint {path} holds no training that could go on (optimizer and '
                f'meta): start from its weights with --cfg-options load_from={path}'
            )
    check_data(cfg, stages)


def _checkpoints(cfg: Config) -> Iterator[tuple[str, Path]]:
    if cfg.get('load_from') and '://' not in cfg.load_from:
        yield 'resume' if cfg.get('resume') else 'load_from', Path(cfg.load_from)
    for where, source in pretrained_sources(cfg.get('model')):
        if '://' not in source:
            yield where, Path(source)
