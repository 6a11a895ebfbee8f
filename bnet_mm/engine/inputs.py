"""Looks at what a run will need before anything is built, and says what is missing."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from bnet_mm.backbones.placement_aware import is_bnet
from bnet_mm.checkpoint import read_checkpoint
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
NORM_KEYS = {
    'type', 'k', 'dilation', 'positions', 'eps', 'momentum', 'track_running_stats',
    'requires_grad', '_scope_', '_delete_',
}  # fmt: skip


def check_inputs(cfg: Config, stages: tuple[str, ...]) -> None:
    """Checks packages, norms, checkpoints and data of the `stages` ('train', 'val', 'test').

    Raises:
        InputError: the first thing that is missing or wrong.
    """
    check_library(cfg.get('default_scope'))
    check_norms(cfg.get('model'))
    for where, path in _checkpoints(cfg):
        try:
            read_checkpoint(path)
        except InputError as error:
            raise InputError(f'{where}: {error}') from error
    for stage in stages:
        for where, path in _data_paths(cfg, stage):
            if not path.exists():
                raise InputError(
                    f'{where}: there is nothing at {path.absolute()}; link or copy the dataset '
                    f'there, name another folder with --cfg-options data_root=FOLDER, or draw a '
                    f'small one with `python tools/make_demo_data.py coco --out data`'
                )


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
        if name in (scope, package):
            return (
                f'it builds on {package}, which is not installed: run `make env` in the checkout, '
                f"or `pip install 'bnet_mm[{extra}]'`"
            )
    return f'it needs a package that is not installed: {error}'


def check_norms(node: object, where: str = 'model') -> None:
    """Raises InputError for a BNET norm_cfg anywhere below `node` that cannot be built."""
    if isinstance(node, dict):
        if is_bnet(node.get('type')):
            unknown = sorted(set(node) - NORM_KEYS)
            if unknown:
                raise InputError(
                    f'{where}: BNET takes no {unknown[0]!r}; its entries are k, dilation, '
                    f'positions, eps, momentum, track_running_stats and requires_grad'
                )
            try:
                check_kernel(node.get('k', 3), node.get('dilation', 1))
                check_positions(node.get('positions', 'C'))
            except InputError as error:
                raise InputError(f'{where}: {error}') from error
        for key, value in node.items():
            check_norms(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            check_norms(value, f'{where}.{i}')


def explain_bad_annotations(cfg: Config) -> str | None:
    """Returns which annotation file of `cfg` is not JSON or not COCO's, or None."""
    for stage in ('train', 'val', 'test'):
        for where, path in _data_paths(cfg, stage):
            if path.suffix != '.json' or not path.is_file():
                continue
            try:
                content = json.loads(path.read_bytes())
            except ValueError as error:
                return f'{where}: {path} is not JSON ({error}); fetch or write it again'
            section = cfg.get(where.partition('.')[0])
            missing = [
                key
                for key in ('images', 'annotations', 'categories')
                if not (isinstance(content, dict) and isinstance(content.get(key), list))
            ]
            if missing and 'Coco' in str(section):
                return (
                    f'{where}: {path} is not a COCO annotation file: it has no list {missing[0]!r}'
                )
    return None


def explain_empty_dataset(cfg: Config) -> str:
    """Returns why a dataset has no picture: where the class names do not fit, which ones."""
    bad = explain_bad_annotations(cfg)
    if bad:
        return bad
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset, where in _datasets(cfg.get(section), section):
            path = _joined(dataset.get('data_root'), dataset.get('ann_file'))
            if path is None or path.suffix != '.json' or not path.is_file():
                continue
            there = [str(c.get('name')) for c in json.loads(path.read_bytes())['categories']]
            asked = _classes(dataset, cfg.get('default_scope'))
            if asked and not set(there) & set(asked):
                return (
                    f'{where}: no picture is left, since {path} has the classes {_some(there)} and '
                    f'the config asks for {_some(asked)}; set {where}.metainfo.classes, the same '
                    f'for the other datasets, and num_classes of the heads'
                )
    return 'a dataset has no picture; check its ann_file, data_prefix and filter_cfg'


def _classes(dataset: dict, scope: str | None) -> list[str]:
    """Returns the classes a dataset will have: its config's, or its class's own."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            dataset_class = registry.get(dataset['type'])
        classes = (getattr(dataset_class, 'METAINFO', None) or {}).get('classes') or []
    return [classes] if isinstance(classes, str) else list(classes)


def _some(names: list[str]) -> str:
    return ', '.join(names[:6]) + (f', ... ({len(names)})' if len(names) > 6 else '')


def _checkpoints(cfg: Config) -> Iterator[tuple[str, Path]]:
    if cfg.get('load_from') and '://' not in cfg.load_from:
        yield 'resume' if cfg.get('resume') else 'load_from', Path(cfg.load_from)
    yield from _pretrained(cfg.get('model'), 'model')


def _pretrained(node: object, where: str) -> Iterator[tuple[str, Path]]:
    if isinstance(node, dict):
        source = node.get('checkpoint')
        if node.get('type') == 'Pretrained' and isinstance(source, str) and '://' not in source:
            yield where, Path(source)
        for key, value in node.items():
            yield from _pretrained(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _pretrained(value, f'{where}.{i}')


def _data_paths(cfg: Config, stage: str) -> Iterator[tuple[str, Path]]:
    """Yields each local file and folder that a stage's datasets and evaluators will read."""
    section = f'{stage}_dataloader'
    for dataset, where in _datasets(cfg.get(section), section):
        root = dataset.get('data_root')
        if _joined(root, '') is not None and root:
            yield f'{where}.data_root', Path(root)
        path = _joined(root, dataset.get('ann_file'))
        if path is not None:
            yield f'{where}.ann_file', path
        prefix = dataset.get('data_prefix')
        for key, value in prefix.items() if isinstance(prefix, dict) else [('', prefix)]:
            path = _joined(root, value)
            if path is not None:
                yield f'{where}.data_prefix.{key}'.rstrip('.'), path
    evaluators = cfg.get(f'{stage}_evaluator')
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        path = _joined(None, (evaluator or {}).get('ann_file'))
        if path is not None:
            yield f'{stage}_evaluator.ann_file', path


def _datasets(node: object, where: str) -> Iterator[tuple[dict, str]]:
    """Yields the configs of the datasets proper, inside whatever wraps them."""
    if isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _datasets(value, f'{where}.{i}')
    if not isinstance(node, dict):
        return
    inner = [key for key in ('dataset', 'datasets') if key in node]
    for key in inner:
        yield from _datasets(node[key], f'{where}.{key}')
    if not inner:
        yield node, where


def _joined(root: str | None, path: object) -> Path | None:
    """Joins as mmengine's datasets do; None where there is no path or it is not a local one."""
    if not isinstance(path, str) or (root is None and not path):
        return None
    if '://' in path or '://' in (root or '') or ':' in (root or '').split('/')[0]:
        return None
    return Path(root or '') / path
