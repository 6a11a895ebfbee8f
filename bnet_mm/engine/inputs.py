"""Looks at what a run will need before anything is built, and says what is missing."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from bnet_mm.backbones.placement_aware import bnet_class
from bnet_mm.checkpoint import is_of_training, read_checkpoint
from bnet_mm.engine.data import check_data
from bnet_mm.errors import InputError
from bnet_mm.norm.depthwise import check_kernel
from bnet_mm.placement import check_positions

# Scope of a config -> name of the library's package and of the extra that installs it.
LIBRARIES = {
    'mmdet': ('mmdet', 'det'),
    'mmseg': ('mmsegmentation', 'seg'),
    'mmaction': ('mmaction2', 'action'),
    'mmpretrain': ('mmpretrain', 'cls'),
}
# Of a norm_cfg: what is not an argument of the layer.
NORM_KEYS = {'type', 'requires_grad', '_scope_', '_delete_'}


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


@contextmanager
def config_errors() -> Iterator[None]:
    """Turns what a library says of a config it cannot build into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        if 'registry' in str(error) or 'unexpected keyword argument' in str(error):
            raise InputError(f'the config does not fit the library: {error}') from error
        raise


def check_library(scope: str | None) -> None:
    """Raises InputError unless the library of a config's `default_scope` can be imported."""
    if scope not in LIBRARIES:
        return
    for module in ('mmcv', scope):
        if find_spec(module) is None:
            package, extra = LIBRARIES[scope] if module == scope else (module, LIBRARIES[scope][1])
            raise InputError(
                f'this config needs {package}, which is not installed: run `make env` in the '
                f"checkout, or `pip install 'bnet_mm[{extra}]'`"
            )
    try:
        __import__(scope)
    except (ImportError, AssertionError) as error:
        raise InputError(f'{scope} cannot be imported: {error}') from error


def package_error(error: Exception) -> str:
    """Returns what a failed import or a missing distribution means for the user."""
    name = (getattr(error, 'name', None) or str(error)).split('.')[0]
    if name == 'pkg_resources':
        return "the `mmdet::` bases need pkg_resources: pip install 'setuptools<81'"
    for scope, (package, extra) in LIBRARIES.items():
        if name in (scope, package) and find_spec(scope) is None:
            return (
                f'it builds on {package}, which is not installed: run `make env` in the checkout, '
                f"or `pip install 'bnet_mm[{extra}]'`"
            )
    return f'it needs a package that is not installed: {error}'


def check_norms(node: object, where: str = 'model') -> None:
    """Raises InputError for a BNET norm_cfg anywhere below `node` that cannot be built."""
    if isinstance(node, dict):
        norm = bnet_class(node.get('type'))
        if norm:
            entries = list(inspect.signature(norm).parameters)
            entries = [e for e in entries if e not in ('num_features', 'device', 'dtype')]
            unknown = sorted(set(node) - NORM_KEYS - set(entries))
            if unknown:
                entries.remove('_scope_')
                raise InputError(
                    f'{where}: {norm.__name__} takes no {unknown[0]!r}; its entries are '
                    f'{", ".join(entries)} and requires_grad'
                )
            try:
                check_kernel(node.get('k', 3), node.get('dilation', 1))
                check_positions(node.get('positions'))
            except InputError as error:
                raise InputError(f'{where}: {error}') from error
        for key, value in node.items():
            check_norms(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            check_norms(value, f'{where}.{i}')


def pretrained_sources(node: object, where: str = 'model') -> Iterator[tuple[str, str]]:
    """Yields each entry of a model's config that names pretrained weights, and the file or URL."""
    if isinstance(node, dict):
        for key in ('pretrained', 'checkpoint'):
            source = node.get(key)
            if isinstance(source, str) and (
                key == 'pretrained' or node.get('type') == 'Pretrained'
            ):
                yield f'{where}.{key}', source
        for key, value in node.items():
            yield from pretrained_sources(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from pretrained_sources(value, f'{where}.{i}')


def _checkpoints(cfg: Config) -> Iterator[tuple[str, Path]]:
    if cfg.get('load_from') and '://' not in cfg.load_from:
        yield 'resume' if cfg.get('resume') else 'load_from', Path(cfg.load_from)
    for where, source in pretrained_sources(cfg.get('model')):
        if '://' not in source:
            yield where, Path(source)
