"""What COCO annotation files hold, next to what a config asks of them."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from bnet_mm.engine.data.classes import explain_classes
from bnet_mm.engine.data.files import STAGES, annotation_file, datasets, own_classes
from bnet_mm.engine.data.samples import Finding, some

BOM = codecs.BOM_UTF8
# Bytes of JSON that are surely read in a second.
BYTES_A_SECOND = 20_000_000
LISTS = ('annotations', 'categories')
# What a COCO evaluation reads of each annotation.
EVALUATED = ('iscrowd', 'area', 'bbox')


def explain_annotations(cfg: Config, empty: bool = False) -> str | None:
    """Returns what is wrong with the JSON annotation files of a config, or None.

    Args:
        cfg: the config of a run that failed.
        empty: whether it failed since a dataset has no image; then there is always an answer.
    """
    for stage in STAGES:
        for dataset, where in datasets(cfg, stage):
            path = annotation_file(dataset)
            content = {}
            if path is not None and path.suffix == '.json' and path.is_file():
                try:
                    content = _json(path)
                except ValueError as error:
                    return f'{where}.ann_file: {path} is not JSON ({error}); write it again'
                if path.read_bytes()[:3] == BOM:
                    return (
                        f'{where}.ann_file: {path} begins with a byte order mark, which the '
                        f'library does not read; save it as UTF-8 without one'
                    )
                for key in ('images', 'annotations', 'categories'):
                    known = isinstance(content, dict) and isinstance(content.get(key), list)
                    if not known and 'Coco' in str(dataset.get('type')):
                        return (
                            f'{where}.ann_file: {path} is not a COCO annotation file: it has no '
                            f'list {key!r}'
                        )
            if not empty:
                continue
            given = (dataset.get('metainfo') or {}).get('classes')
            problem = explain_classes(given, where)
            if problem:
                return problem
            categories = content.get('categories', []) if isinstance(content, dict) else []
            present = [str(category.get('name')) for category in categories]
            wanted = [given] if isinstance(given, str) else given or own_classes(dataset, cfg)
            if present and wanted and not set(present) & set(wanted):
                return (
                    f'{where}: no image is left, since {path} has the classes {some(present)} and '
                    f'the config asks for {some(wanted)}; set {where}.metainfo.classes, the same '
                    f'for the other datasets, and num_classes of the heads'
                )
    return (
        'a dataset has no image; check its ann_file, data_prefix and filter_cfg' if empty else None
    )


def look_at_annotations(cfg: Config, stages: tuple[str, ...], seconds: float) -> list[Finding]:
    """Returns what is odd about the COCO files of some stages, as far as the time suffices.

    Classes that fit a file partly, and entries that an evaluation needs and does not find.
    """
    found: list[Finding] = []
    read: dict[Path, dict] = {}
    for stage in stages:
        for dataset, where in datasets(cfg, stage):
            path = annotation_file(dataset)
            content = _coco(path, read, seconds)
            if content:
                wanted = _classes(dataset, cfg)
                found += [Finding(t, stage) for t in _class_findings(content, wanted, where)]
        evaluators = cfg.get(f'{stage}_evaluator') if stage != 'train' else None
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            if 'Coco' in _name((evaluator or {}).get('type')) and evaluator.get('ann_file'):
                path = Path(evaluator['ann_file'])
                entries = _coco(path, read, seconds).get('annotations', [])
                found += [Finding(t, stage) for t in _evaluation_findings(entries, path)]
    return found


def _coco(path: Path | None, read: dict[Path, dict], seconds: float) -> dict:
    """Returns the content of a COCO file, read once; empty where it is none or too large."""
    if path is None or path.suffix != '.json':
        return {}
    if path not in read:
        read[path] = {}
        used = sum(known.stat().st_size for known in read if known.is_file())
        if path.is_file() and used < BYTES_A_SECOND * seconds:
            try:
                content = _json(path)
            except (OSError, ValueError):  # the library says so when it reads it
                return {}
            if isinstance(content, dict) and all(
                isinstance(content.get(key), list)
                and all(isinstance(e, dict) for e in content[key])
                for key in ('annotations', 'categories')
            ):
                read[path] = content
    return read[path]


def _json(path: Path) -> object:
    return json.loads(path.read_text(encoding='utf-8-sig'))


def _classes(dataset: dict, cfg: Config) -> list[str]:
    given = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(given, str):
        return Path(given).read_text().split('\n') if Path(given).is_file() else [given]
    return list(given or own_classes(dataset, cfg) or [])


def _class_findings(content: dict, wanted: list[str], where: str) -> Iterator[str]:
    names = {entry.get('id'): str(entry.get('name')) for entry in content['categories']}
    if not wanted or not names:
        return
    counts = Counter(names.get(entry.get('category_id')) for entry in content['annotations'])
    others = [name for name in names.values() if name not in wanted]
    left = sum(counts[name] for name in others)
    if left:
        yield (
            f'{where}: {some(others)}: {left} of {len(content["annotations"])} annotations belong '
            f'to none of the {len(wanted)} classes and are left out; the classes are those of '
            f'metainfo.classes, by default the class of the dataset'
        )
    unknown = counts[None]
    if unknown:
        yield f'{where}: {unknown} annotations are of a category that the file does not list'
    absent = [name for name in wanted if name not in names.values()]
    if absent and not left and len(absent) < len(wanted):
        yield (
            f'{where}: {len(absent)} of the {len(wanted)} classes are not in its annotation file: '
            f'{some(absent)}'
        )


def _evaluation_findings(entries: list[dict], path: Path) -> Iterator[str]:
    for key in EVALUATED:
        lacking = sum(key not in entry for entry in entries)
        if lacking:
            yield (
                f"{path}: {lacking} of {len(entries)} annotations have no '{key}', which the "
                f'evaluation reads: it will fail; write 0 for iscrowd, and the '
                f'area of the box or polygon'
            )


def _name(kind: object) -> str:
    return str(getattr(kind, '__name__', kind))
