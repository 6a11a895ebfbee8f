"""Detections as COCO result files, and the annotations they are of."""

import json
import math
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from sys import stderr

from mmengine.config import Config

from bnet_mm.engine.config import set_run_options
from bnet_mm.engine.launch import test
from bnet_mm.engine.trained import load_trained
from bnet_mm.errors import InputError


@dataclass(frozen=True)
class Annotations:
    """What a COCO annotation file says.

    Attributes:
        path: the file.
        images: its images by id.
        categories: names of its categories by id.
        objects: its annotations; `segmentation` may be missing or empty.
    """

    path: Path
    images: dict[int, dict]
    categories: dict[int, str]
    objects: list[dict]


def read_annotations(path: str | Path) -> Annotations:
    """Reads a COCO annotation file.

    Raises:
        InputError: it is none.
    """
    contents = _read_json(path)
    try:
        return Annotations(
            Path(path),
            {image['id']: image for image in contents['images']},
            {category['id']: category['name'] for category in contents['categories']},
            [
                {'iscrowd': 0, **{key: a[key] for key in ('image_id', 'category_id', 'bbox')}, **a}
                for a in contents['annotations']
            ],
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f'{path} is no COCO annotation file: it lacks {error} (a result file is a list, and '
            f'stands before --annotations)'
        ) from error


def read_detections(path: str | Path, annotations: Annotations) -> list[dict]:
    """Reads a COCO result file: a list of boxes, or masks, with image, category and score.

    Raises:
        InputError: it is none, or it is of other images or categories.
    """
    detections = _read_json(path)
    if not isinstance(detections, list):
        raise InputError(f'{path} is no COCO result file: it holds no list')
    for number, detection in enumerate(detections):
        where = f'{path}, detection {number}'
        try:
            image, category = detection['image_id'], detection['category_id']
            numbers = [detection['score'], *(detection.get('bbox') or ())]
            whole = all(map(math.isfinite, numbers)) and len(numbers) in (1, 5)
            whole = whole and ('bbox' in detection or 'segmentation' in detection)
        except (KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise InputError(
                f'{where} is damaged: it wants image_id, category_id, score and a bbox of 4 '
                f'numbers or a segmentation'
            )
        for what, name, known in (
            (image, 'image', annotations.images),
            (category, 'category', annotations.categories),
        ):
            if what not in known:
                raise InputError(
                    f'{where} is of {name} {what}, which {annotations.path} has not: these are '
                    f'detections of other data'
                )
    return detections


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
    load_trained(cfg, checkpoint)  # says it where the two do not belong together
    metric['outfile_prefix'] = str(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    set_run_options(cfg, config_path=config_path, work_dir=f'{prefix}_test')
    with redirect_stdout(stderr):
        metrics = test(cfg, str(checkpoint))
    kinds = {'bbox': prefix.with_name(f'{prefix.name}.bbox.json')}
    kinds['segm'] = prefix.with_name(f'{prefix.name}.segm.json')
    return [file for file in kinds.values() if file.is_file()], metrics


def _coco_metric(cfg: Config) -> dict:
    evaluators = cfg.get('test_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        kind = str(evaluator.get('type')).removeprefix('mmdet.')
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
        raise InputError(f'{path} is no JSON file: {error}') from error
