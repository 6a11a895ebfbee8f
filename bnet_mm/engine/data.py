"""Looks at the data of a run, and says which file, class or picture is missing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from bnet_mm.errors import InputError


def check_data(cfg: Config, stages: tuple[str, ...]) -> None:
    """Raises InputError unless every file and folder that the `stages` name is there."""
    for stage in stages:
        for where, path in _data_paths(cfg, stage):
            if not path.exists():
                sentence = (
                    f'{where}: there is nothing at {path.absolute()}; link or copy the dataset '
                    f'there, or name another folder with --cfg-options data_root=FOLDER'
                )
                if 'Coco' in str(cfg.get(where.partition('.')[0])):
                    sentence += (
                        '; `python tools/make_demo_data.py coco --out data` draws a small one '
                        "in COCO's layout into data/coco"
                    )
                raise InputError(sentence)


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


class DatasetCheckHook(Hook):
    """Checks before the first step that there are pictures and that the heads know their classes.

    Raises:
        InputError: the training dataset is empty, or a head has fewer classes than the dataset.
    """

    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        dataset = runner.train_loop.dataloader.dataset
        if hasattr(dataset, '__len__') and len(dataset) == 0:
            raise InputError(explain_empty_dataset(runner.cfg))
        metainfo = getattr(dataset, 'metainfo', None) or {}
        classes = metainfo.get('classes')
        if classes is None or 'stuff_classes' in metainfo:  # panoptic: each head has its share
            return
        if isinstance(classes, str):
            raise InputError(
                f'metainfo.classes is the text {classes!r}; a single class is written '
                f"metainfo.classes=('{classes}',)"
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, module in model.named_modules():
            known = getattr(module, 'num_classes', None)
            if (
                re.search(r'\b(bbox|mask)_head(\.\d+)?$', name)
                and isinstance(known, int)
                and known < len(classes)
            ):
                raise InputError(
                    f'the training dataset has {len(classes)} classes and model.{name} has '
                    f'num_classes={known}; set model.{name}.num_classes={len(classes)}, or '
                    f'metainfo.classes of the datasets'
                )


def _data_paths(cfg: Config, stage: str) -> Iterator[tuple[str, Path]]:
    """Yields each local file and folder that a stage's datasets and evaluators will read."""
    section = f'{stage}_dataloader'
    for dataset, where in _datasets(cfg.get(section), section):
        root = dataset.get('data_root')
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
