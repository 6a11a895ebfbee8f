"""What is wrong with a COCO annotation file, or with the classes a config asks of one."""

import json
from pathlib import Path

from mmengine.config import Config

from bnet_mm.engine.data.config_walk import STAGES, annotation_file, dataset_class, datasets


def explain_bad_annotations(cfg: Config) -> str | None:
    """Returns which annotation file of `cfg` is not JSON or not COCO's, or None."""
    for stage in STAGES:
        for dataset, where in datasets(cfg, stage):
            path = annotation_file(dataset)
            if path is None or path.suffix != '.json' or not path.is_file():
                continue
            try:
                content = json.loads(path.read_bytes())
            except ValueError as error:
                return f'{where}.ann_file: {path} is not JSON ({error}); fetch or write it again'
            missing = [
                key
                for key in ('images', 'annotations', 'categories')
                if not (isinstance(content, dict) and isinstance(content.get(key), list))
            ]
            if missing and 'Coco' in str(dataset.get('type')):
                return (
                    f'{where}.ann_file: {path} is not a COCO annotation file: it has no list '
                    f'{missing[0]!r}'
                )
    return None


def explain_empty_dataset(cfg: Config) -> str:
    """Returns why a dataset has no picture: where the class names do not fit, which ones."""
    bad = explain_bad_annotations(cfg)
    if bad:
        return bad
    for stage in STAGES:
        for dataset, where in datasets(cfg, stage):
            text = explain_text_for_classes((dataset.get('metainfo') or {}).get('classes'), where)
            if text:
                return text
            path = annotation_file(dataset)
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


def explain_text_for_classes(classes: object, where: str) -> str | None:
    """Returns what is wrong with class names that are one text and no file of names, or None."""
    if not isinstance(classes, str) or Path(classes).is_file():
        return None
    return (
        f'{where}: metainfo.classes is the text {classes!r}; a single class is written '
        f"metainfo.classes=('{classes}',)"
    )


def _classes(dataset: dict, scope: str | None) -> list[str]:
    """Returns the classes a dataset will have: its config's, or its class's own."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        metainfo = getattr(dataset_class(dataset, scope), 'METAINFO', None) or {}
        classes = metainfo.get('classes') or []
    return [classes] if isinstance(classes, str) else list(classes)


def _some(names: list[str]) -> str:
    return ', '.join(names[:6]) + (f', ... ({len(names)})' if len(names) > 6 else '')
