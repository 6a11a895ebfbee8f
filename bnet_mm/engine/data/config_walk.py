"""Finds the datasets proper in a config, and the files that they name."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

STAGES = ('train', 'val', 'test')


def datasets(cfg: Config, stage: str) -> Iterator[tuple[dict, str]]:
    """Yields each dataset's config of a stage, inside whatever wraps it, and where it stands."""
    section = f'{stage}_dataloader'
    yield from _datasets_below(cfg.get(section), section)


def _datasets_below(node: object, where: str) -> Iterator[tuple[dict, str]]:
    if isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _datasets_below(value, f'{where}.{i}')
    if not isinstance(node, dict):
        return
    inner = [key for key in ('dataset', 'datasets') if key in node]
    for key in inner:
        yield from _datasets_below(node[key], f'{where}.{key}')
    if not inner:
        yield node, where


def dataset_class(dataset: dict, scope: str | None) -> type:
    """Returns the class that the library of `scope` builds a dataset's config into, or `object`."""
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(dataset.get('type')) or object


def annotation_file(dataset: dict) -> Path | None:
    """Returns where a dataset's local annotation file is, or None."""
    return joined(dataset.get('data_root'), dataset.get('ann_file'))


def folders(dataset: dict) -> Iterator[tuple[str, Path]]:
    """Yields the key and the path of each local folder of a dataset's `data_prefix`."""
    prefix = dataset.get('data_prefix')
    for key, value in prefix.items() if isinstance(prefix, dict) else [('', prefix)]:
        path = joined(dataset.get('data_root'), value)
        if path is not None:
            yield key, path


def joined(root: str | None, path: object) -> Path | None:
    """Joins as mmengine's datasets do; None where there is no path or it is not a local one."""
    if not isinstance(path, str) or (root is None and not path):
        return None
    if '://' in path or '://' in (root or '') or ':' in (root or '').split('/')[0]:
        return None
    return Path(root or '') / path
