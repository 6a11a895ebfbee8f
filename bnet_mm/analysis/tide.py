"""What each kind of error costs a detector in AP, by tidecv (TIDE; paper, table 14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from pycocotools import mask as mask_utils
from rich.console import Console
from rich.progress import track

from bnet_mm.analysis.detections import (
    Annotations,
    annotations_of,
    detect,
    read_annotations,
    read_detections,
)
from bnet_mm.analysis.packages import need
from bnet_mm.analysis.pairs import Pair
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import load_model
from bnet_mm.text import without_suffix

PAPER_ERRORS = Path(__file__).with_name('paper_errors.yml')
# Table 14's columns by tidecv's names; it also has errors of class and place at once ('Both') and
# objects that are found twice ('Dupe').
COLUMNS = {
    'Cls': 'E_cls', 'Loc': 'E_loc', 'Bkg': 'E_bkg', 'Miss': 'E_miss',
    'FalsePos': 'E_FP', 'FalseNeg': 'E_FN', 'Both': 'E_both', 'Dupe': 'E_dupe',
}  # fmt: skip
TABLE_14 = ('AP', 'AP50', 'E_cls', 'E_loc', 'E_bkg', 'E_miss', 'E_FP', 'E_FN')
# Those that tell detections apart; the others are about all false ones, and all missed ones.
MAIN = ('E_cls', 'E_loc', 'E_both', 'E_dupe', 'E_bkg', 'E_miss')
# tidecv's: a detection is right from 0.5 IoU on, and on nothing up to 0.1.
RIGHT, NOTHING = 0.5, 0.1
BOXES, MASKS = 'bbox', 'mask'
MANY = 20_000  # detections, whose analysis takes long enough to show how far it is
KINDS = ('boxes', 'masks')


@dataclass(frozen=True)
class ErrorRow:
    """The errors of one detector.

    Attributes:
        name: of the config or of the result file.
        kind: 'boxes' or 'masks'.
        values: in percent, by table 14's columns and 'E_both' and 'E_dupe'. AP and AP50 are
            tidecv's; of an error, how much higher AP50 were without it. (Of a detector that finds
            nothing at all, which tidecv cannot take: 100 for what is missed.)
        paper: the paper's row of this config by table 14's columns, or empty.
        notes: what was left out, and why.
    """

    name: str
    kind: str
    values: dict[str, float]
    paper: dict[str, float]
    notes: Sequence[str] = ()

    def shares(self) -> dict[str, float]:
        """Returns which share of all errors each of the main ones is (figure 6), or nothing."""
        total = sum(self.values[name] for name in MAIN)
        return {name: self.values[name] / total for name in MAIN} if total else {}


def analyze_errors(
    name: str,
    annotations: Annotations,
    detections: Sequence[dict],
    kinds: Sequence[str] = KINDS,
) -> list[ErrorRow]:
    """Returns the errors of a detector's boxes and, where it gives some, its masks.

    Args:
        name: how to call it.
        annotations: what it should have found.
        detections: see `bnet_mm.analysis.detections.read_detections`.
        kinds: 'boxes' and 'masks', or one of them.

    Raises:
        InputError: detections and annotations have neither boxes nor masks in common.
    """
    objects = [entry for entry in annotations.objects if not entry['iscrowd']]
    if not objects:
        raise InputError(f'{annotations.path} has no object, so that there is no AP')
    have_boxes = [d.get('bbox') is not None for d in detections]
    have_masks = [bool(d.get('segmentation')) for d in detections]
    bare = sum(not entry.get('segmentation') for entry in objects)
    notes = list(annotations.notes)
    if any(have_masks) and bare:
        notes.append(
            f'masks are not compared: {bare} of {len(objects)} objects in {annotations.path} have '
            f'none'
        )
    rows = []
    if 'boxes' in kinds and all(have_boxes):
        values = _tide(annotations, detections, BOXES)
        rows.append(ErrorRow(name, 'boxes', values, _papers_errors().get(name, {}), notes))
    # Where nothing is found, boxes stand for both unless masks are asked for by themselves.
    some = have_masks or 'boxes' not in kinds
    if 'masks' in kinds and some and all(have_masks) and not bare:
        rows.append(ErrorRow(name, 'masks', _tide(annotations, detections, MASKS), {}, notes))
    if not rows:
        reason = (
            'some of its detections have no boxes, and some no masks'
            if any(have_boxes) and any(have_masks)
            else f'it has masks and no boxes, and {annotations.path} has no masks to compare with'
        )
        raise InputError(f'{name} cannot be analyzed: {reason}')
    return rows


def errors_of_files(results: Sequence[str], annotations: str) -> list[ErrorRow]:
    """Returns the errors of detectors from their COCO result files.

    Args:
        results: `.json` files of detections.
        annotations: the COCO annotations they are compared with.

    Raises:
        InputError: a file cannot be used.
    """
    truth = read_annotations(annotations)
    names = [without_suffix(Path(file).name, '.json') for file in results]
    if len(set(names)) < len(names):
        names = list(map(str, results))
    rows = []
    for name, file in zip(names, results):
        rows += analyze_errors(name, truth, read_detections(file, truth))
    return rows


def errors_of_models(pairs: Sequence[Pair], keep: Path | None = None) -> list[ErrorRow]:
    """Tests detectors and returns their errors, boxes and where they have some masks.

    Args:
        pairs: the detectors. All are looked at before the first is tested.
        keep: a folder for the detections, as `<name>.bbox.json` and `<name>.segm.json`.

    Raises:
        InputError: a detector cannot be used, or its data is missing.
    """
    need('tidecv')
    truths = []
    for pair in pairs:
        cfg = pair.read_config()
        truths.append(annotations_of(cfg))
        load_model(cfg, pair.checkpoint)
    rows = []
    with TemporaryDirectory() as temporary:
        for pair, truth in zip(pairs, truths):
            prefix = (keep or Path(temporary)) / pair.name
            files, _ = detect(pair.read_config(), pair.config, pair.checkpoint, prefix)
            rows += errors_of_detections(pair.name, files, truth)
    return rows


def errors_of_detections(name: str, files: Sequence[Path], truth: Annotations) -> list[ErrorRow]:
    """Returns the errors in what `detect` wrote: boxes in the first file, masks in a second."""
    rows = []
    for file, kind in zip(files, KINDS):
        rows += analyze_errors(name, truth, read_detections(file, truth), (kind,))
    return rows


def _tide(annotations: Annotations, detections: Sequence[dict], mode: str) -> dict[str, float]:
    need('tidecv')
    from tidecv.quantify import TIDE, TIDERun  # takes seconds to import

    truth, found = _truth(annotations, mode), _found(annotations, detections, mode)
    if not found.annotations:
        # tidecv divides by the number of classes that are left, which is none.
        values = dict.fromkeys(('AP', 'AP50', *COLUMNS.values()), 0.0)
        values.update(E_miss=100.0, E_FN=100.0)
        return values
    # Runs and not tidecv's TIDE, which makes a folder in the user's home, restyles matplotlib and
    # keeps all ten runs, gigabytes of them for COCO.
    aps = []
    for threshold in track(
        TIDE.COCO_THRESHOLDS,
        f'errors of {len(detections)} detections',
        console=Console(stderr=True),
        transient=True,
        disable=len(detections) < MANY,
    ):
        of_threshold = TIDERun(
            truth, found, threshold, NOTHING, mode, truth.max_dets, threshold == RIGHT
        )
        aps.append(of_threshold.ap)
        if threshold == RIGHT:
            run = of_threshold
    values = {'AP': sum(aps) / len(aps), 'AP50': run.ap}
    errors = {**run.fix_main_errors(), **run.fix_special_errors()}
    values.update({COLUMNS[kind.short_name]: float(value) for kind, value in errors.items()})
    return values


def _truth(annotations: Annotations, mode: str):
    """Returns the objects as tidecv wants them; crowds are regions where nothing counts."""
    from tidecv.data import Data

    data = Data(annotations.path.stem, max_dets=100)
    for image in annotations.images.values():
        data.add_image(image['id'], str(image.get('file_name')))
    for category, name in annotations.categories.items():
        data.add_class(category, name)
    for a in annotations.objects:
        add = data.add_ignore_region if a['iscrowd'] else data.add_ground_truth
        mask = _mask(a, annotations) if mode == MASKS else None
        add(a['image_id'], a['category_id'], a['bbox'], mask)
    return data


def _found(annotations: Annotations, detections: Sequence[dict], mode: str):
    from tidecv.data import Data

    data = Data('detections')
    for d in detections:
        mask = _mask(d, annotations) if mode == MASKS else None
        data.add_detection(d['image_id'], d['category_id'], d['score'], d.get('bbox'), mask)
    return data


def _mask(entry: dict, annotations: Annotations) -> dict | None:
    """Returns a mask run-length encoded, of polygons or run lengths."""
    from tidecv.functions import toRLE

    segmentation = entry.get('segmentation')
    if not segmentation:
        return None
    image = annotations.images[entry['image_id']]
    where = f'a mask of image {image["id"]}'
    try:
        size = [image['height'], image['width']]
    except KeyError as error:
        raise InputError(
            f'{annotations.path} tells no height and width of image {image["id"]}, which its masks '
            f'need'
        ) from error
    if isinstance(segmentation, dict):
        declared, lengths = segmentation.get('size'), segmentation.get('counts')
        if declared != size:
            raise InputError(f'{where} has the size {declared}, the image {size} (height, width)')
        if isinstance(lengths, list) and not _fill(lengths, prod(size)):
            raise InputError(f'{where} has run lengths that do not fill its {size[1]}x{size[0]}')
    try:
        mask = toRLE(segmentation, size[1], size[0])
        mask_utils.area(mask)
    except Exception as error:  # pycocotools raises bare ones
        raise InputError(f'{where} is neither polygons nor run lengths: {error}') from error
    return mask


def _fill(lengths: Sequence[object], pixels: int) -> bool:
    return all(isinstance(n, int) and n >= 0 for n in lengths) and sum(lengths) == pixels


@lru_cache(maxsize=None)
def _papers_errors() -> dict[str, dict[str, float]]:
    return yaml.safe_load(PAPER_ERRORS.read_text())
