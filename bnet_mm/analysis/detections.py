"""COCO annotation files and result files of detectors: read, checked, and written by a test."""

from __future__ import annotations

import json
import math
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from sys import stderr

from mmengine.config import Config

from bnet_mm.engine.config import set_run_options
from bnet_mm.engine.data.failures import build_dataset
from bnet_mm.engine.launch import test
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import load_model
from bnet_mm.text import without_prefix


@dataclass(frozen=True)
class Annotations:
    """What a COCO annotation file says.

    Attributes:
        path: the file.
        images: its images by id.
        categories: names of its categories by id.
        objects: its annotations; `segmentation` may be missing or empty.
        notes: what of the file is left out, and why.
    """

    path: Path
    images: dict[int, dict]
    categories: dict[int, str]
    objects: list[dict]
    notes: tuple[str, ...] = ()


def read_annotations(path: str | Path) -> Annotations:
    """Reads a COCO annotation file.

    Objects of images that it does not list are left out, as COCO's evaluation does.

    Raises:
        InputError: it is not such a file.
    """
    contents = _read_json(path)
    lists = ('images', 'categories', 'annotations')
    if not isinstance(contents, dict) or not all(isinstance(contents.get(k), list) for k in lists):
        raise InputError(
            f'{path} is not a COCO annotation file, which has lists of images, categories and '
            f'annotations (a result file is a list, and stands before --annotations)'
        )
    try:
        images = {image['id']: image for image in contents['images']}
        categories = {category['id']: category['name'] for category in contents['categories']}
    except (KeyError, TypeError) as error:
        raise InputError(
            f'{path} is not a COCO annotation file: an image lacks its id, or a category its id or '
            f'name'
        ) from error
    objects = []
    for number, entry in enumerate(contents['annotations']):
        if not _is_placed(entry) or not _is_box(entry.get('bbox')):
            raise InputError(
                f'{path}, annotation {number} is damaged: it wants image_id, category_id and a '
                f'bbox of 4 numbers'
            )
        if entry['category_id'] not in categories:
            raise InputError(
                f'{path}, annotation {number} is of category {entry["category_id"]}, which the '
                f'file does not list'
            )
        if entry['image_id'] in images:
            objects.append({'iscrowd': 0, **entry})
    left_out = len(contents['annotations']) - len(objects)
    notes = (f'{left_out} objects of images that {path} does not list are left out',)
    return Annotations(Path(path), images, categories, objects, notes if left_out else ())


def annotations_of(cfg: Config) -> Annotations:
    """Returns what a detector should find: the objects of its test set's classes.

    Raises:
        InputError: it is not tested with COCO annotations, or the data is not here.
    """
    known = read_annotations(annotation_file(cfg))
    classes = build_dataset(cfg.copy(), 'test').metainfo.get('classes', ())
    categories = {key: name for key, name in known.categories.items() if name in classes}
    if not categories:
        raise InputError(
            f"none of the test set's classes is a category of {known.path}: set metainfo.classes "
            f'of the dataset'
        )
    objects = [entry for entry in known.objects if entry['category_id'] in categories]
    return replace(known, categories=categories, objects=objects)


def read_detections(path: str | Path, annotations: Annotations) -> list[dict]:
    """Reads a COCO result file: a list of boxes, or masks, with image, category and score.

    Raises:
        InputError: it is not such a file, or it is of other images or categories.
    """
    detections = _read_json(path)
    if not isinstance(detections, list):
        raise InputError(f'{path} is not a COCO result file: it holds no list')
    for number, detection in enumerate(detections):
        where = f'{path}, detection {number}'
        whole = _is_placed(detection) and _is_number(detection.get('score'))
        if not (whole and _is_found(detection)):
            raise InputError(
                f'{where} is damaged: it wants image_id, category_id, score and a bbox of 4 '
                f'numbers or a segmentation'
            )
        for what, name, known in (
            (detection['image_id'], 'image', annotations.images),
            (detection['category_id'], 'category', annotations.categories),
        ):
            if what not in known:
                raise InputError(
                    f'{where} is of {name} {what}, which {annotations.path} has not: these are '
                    f'detections of other data'
                )
    return detections


def _is_placed(entry: object) -> bool:
    keys = ('image_id', 'category_id')
    return isinstance(entry, dict) and all(isinstance(entry.get(k), (int, str)) for k in keys)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_found(detection: dict) -> bool:
    box = detection.get('bbox')
    return _is_box(box) if box is not None else bool(detection.get('segmentation'))


def annotation_file(cfg: Config) -> str:
    """Returns the COCO annotation file that a detector is tested with.

    Raises:
        InputError: it is tested with none.
    """
    return _coco_metric(cfg)['ann_file']


def detect(
    cfg: Config, config_path: str | Path, checkpoint: str, prefix: Path
) -> tuple[list[Path], dict]:
    """Runs a detector on its test set and writes what it finds.

    Args:
        cfg: the config of a detector that is tested on COCO's terms; it is changed.
        config_path: where it stands.
        checkpoint: its trained weights.
        prefix: the files are called `<prefix>.bbox.json` and `<prefix>.segm.json`.

    Returns:
        the written files, and the metrics of the test.

    Raises:
        InputError: the checkpoint is not the config's, or something for the test is missing.
    """
    metric = _coco_metric(cfg)
    load_model(cfg, checkpoint)  # says it where the two do not belong together
    metric['outfile_prefix'] = str(prefix)
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'the folder {prefix.parent} cannot be made: {error}') from error
    if cfg.get('visualizer'):  # no service that the training logged to hears of this test
        cfg.visualizer['vis_backends'] = [dict(type='LocalVisBackend')]
    set_run_options(cfg, config_path=config_path, work_dir=f'{prefix}_test')
    with redirect_stdout(stderr):
        metrics = test(cfg, str(checkpoint))
    kinds = {'bbox': prefix.with_name(f'{prefix.name}.bbox.json')}
    kinds['segm'] = prefix.with_name(f'{prefix.name}.segm.json')
    return [file for file in kinds.values() if file.is_file()], metrics


def _coco_metric(cfg: Config) -> dict:
    evaluators = cfg.get('test_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        kind = without_prefix(str(evaluator.get('type')), 'mmdet.')
        if kind == 'CocoMetric' and evaluator.get('ann_file'):
            return evaluator
    raise InputError(
        'errors are analyzed of detectors with a CocoMetric and its ann_file in test_evaluator, '
        'which this config has not'
    )


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    except ValueError as error:
        raise InputError(f'{path} is not a JSON file: {error}') from error
