"""What is wrong with the files that a config names, where a run failed."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from itertools import islice
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from bnet_mm.errors import InputError, program
from bnet_mm.openmmlab.config import class_of, walk

STAGES = ('train', 'val', 'test')
# Layouts that `tools/make_demo_data.py` draws, by a part of the name of a dataset's class.
DRAWN = {
    'Coco': 'coco',
    'Cityscapes': 'cityscapes',
    'VOC': 'voc',
    'Video': 'ucf101',
    'ImageNet': 'imagenet',
    'CustomDataset': 'imagenet',
}
# When to stop looking through lists: disks may be slow.
END: ContextVar[float | None] = ContextVar('END', default=None)
# Only so many files of a list are looked for: ImageNet's 1.3 million take minutes on some disks.
FILES_LOOKED_FOR = 20000


def explain_files(cfg: Config, stages: tuple[str, ...], gone: str | None = None) -> str | None:
    """Returns what is wrong with the files of a run that failed, or None.

    That is the first file or folder of the `stages` that is missing or empty, or a line of a list
    that cannot be used.

    Args:
        cfg: the config of the run.
        stages: of 'train', 'val' and 'test'.
        gone: the file that the run did not find, if that was why it failed.
    """
    try:
        for stage in stages:
            _check_existence(cfg, stage, gone)
    except InputError as error:
        return str(error)
    return next(filter(None, (explain_lists(cfg, stage) for stage in stages)), None)


def explain_lists(cfg: Config, stage: str, end: float | None = None) -> str | None:
    """Returns the first line of a stage's lists, or the first folder, that cannot be used, or None.

    Args:
        cfg: the config of a run.
        stage: 'train', 'val' or 'test'.
        end: when to stop, by `time.monotonic`; None for all lines.
    """
    token = END.set(end)
    try:
        _check_lists(cfg, stage)
    except InputError as error:
        return str(error)
    finally:
        END.reset(token)
    return None


def _check_existence(cfg: Config, stage: str, gone: str | None) -> None:
    for dataset, where in datasets(cfg, stage):
        path = annotation_file(dataset)
        if path is not None:
            _require(path, f'{where}.ann_file', dataset)
        for key, folder in _folders(dataset).items():
            # Some libraries' configs name folders that their datasets never read.
            if gone is not None and str(folder) in gone:
                _require(folder, f'{where}.data_prefix.{key}'.rstrip('.'), dataset)
    evaluators = cfg.get(f'{stage}_evaluator')
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        path = _joined(None, (evaluator or {}).get('ann_file'))
        if path is not None:
            _require(path, f'{stage}_evaluator.ann_file', evaluator)


def _check_lists(cfg: Config, stage: str) -> None:
    for dataset, where in datasets(cfg, stage):
        kind = _class_of(dataset, cfg)
        bases = {base.__name__ for base in kind.__mro__}
        if 'BaseSegDataset' in bases:
            _check_masks(dataset, where, kind)
        elif bases & {'VideoDataset', 'RawframeDataset'}:
            _check_clips(dataset, cfg, frames='RawframeDataset' in bases)
        elif any(base.__module__ == 'mmpretrain.datasets.custom' for base in kind.__mro__):
            _check_labelled_images(dataset, where, cfg)


def datasets(cfg: Config, stage: str) -> Iterator[tuple[dict, str]]:
    """Yields the config of each dataset of a stage, inside any wrappers, and the path to it."""
    loader = f'{stage}_dataloader'
    inside = re.compile(rf'{loader}(\.datasets?|\.\d+)*')
    for where, node in walk(cfg.get(loader), loader):
        leaf = isinstance(node, dict) and not {'dataset', 'datasets'} & node.keys()
        if leaf and inside.fullmatch(where):
            yield node, where


def annotation_file(dataset: dict) -> Path | None:
    """Returns the path of a dataset's local annotation file, or None."""
    return _joined(dataset.get('data_root'), dataset.get('ann_file'))


def _require(
    path: Path, where: str, owner: dict, exists: Callable[[Path], bool] = Path.exists
) -> None:
    if exists(path):
        return
    kind = str(owner.get('type'))
    layout = next((drawn for name, drawn in DRAWN.items() if name in kind), None)
    drawing = f'; `{program("make_demo_data")} {layout} --out data` draws a small one'
    raise InputError(
        f'{where}: there is nothing at {path.absolute()}; link or copy the dataset there, or name '
        f'another folder with --cfg-options data_root=FOLDER' + (drawing if layout else '')
    )


def _class_of(dataset: dict, cfg: Config) -> type:
    """Returns the class that a dataset's config is built into, or `object`."""
    return class_of(dataset, DATASETS, cfg.get('default_scope')) or object


def own_classes(dataset: dict, cfg: Config) -> list[str] | None:
    return (getattr(_class_of(dataset, cfg), 'METAINFO', None) or {}).get('classes')


def _folders(dataset: dict) -> dict[str, Path]:
    """Returns the local folders of a dataset's `data_prefix`, by their keys there."""
    prefix = dataset.get('data_prefix')
    entries = prefix.items() if isinstance(prefix, dict) else [('', prefix)]
    paths = {key: _joined(dataset.get('data_root'), value) for key, value in entries}
    return {key: path for key, path in paths.items() if path is not None}


def _joined(root: str | None, path: object) -> Path | None:
    """Joins as mmengine's datasets do; None where there is no path or it is not a local one."""
    if not isinstance(path, str) or (root is None and not path):
        return None
    if '://' in path or '://' in (root or '') or ':' in (root or '').split('/')[0]:
        return None
    return Path(root or '') / path


def _check_lines(listed: Path, problem_of: Callable[[int, str], str | None]) -> None:
    """Raises InputError for the first line of a list that is blank or has a problem."""
    try:
        lines = listed.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f'{listed} is not a text file: {error}') from error
    except OSError as error:
        raise InputError(f'{listed} cannot be read: {error.strerror}') from error
    if not any(line.strip() for line in lines):
        raise InputError(f'{listed} is empty: it should list one sample a line')
    for number, line in enumerate(map(str.strip, lines), 1):
        if _time_is_over():
            return
        if not line:  # the libraries would take it for a sample without a name
            raise InputError(f'{listed}, line {number} is blank; remove it')
        problem = problem_of(number, line)
        if problem:
            raise InputError(f'{listed}, line {number} ({line!r}): {problem}')


def _time_is_over() -> bool:
    end = END.get()
    return end is not None and time.monotonic() > end


def _first(problems: Iterable[str | None]) -> str | None:
    return next(filter(None, problems), None)


def _missing(path: Path, exists: Callable[[Path], bool] = Path.is_file) -> str | None:
    if exists(path):
        return None
    return f'there is no {"file" if exists is Path.is_file else "folder"} {path}'


def _wrong_label(label: str, classes: int | None, head: str, expected: str) -> str | None:
    if not label.isdigit():
        return (
            f'the label {label!r} is not a number of a class, counted from 0; a line is {expected}'
        )
    if classes is not None and int(label) >= classes:
        return (
            f'label {label} is out of range: the {classes} classes are counted from 0 to '
            f'{classes - 1} (model.{head}.num_classes)'
        )
    return None


def _num_classes(cfg: Config, head: str) -> int | None:
    return ((cfg.get('model') or {}).get(head) or {}).get('num_classes')


def _check_masks(dataset: dict, where: str, kind: type) -> None:
    """Checks the images and masks of an MMSegmentation dataset, listed or in folders."""
    # Of __init__: on Python 3.8 a dataset, which is Generic, shows another signature.
    defaults = inspect.signature(kind.__init__).parameters
    folders, suffixes = _folders(dataset), {}
    for key, name in (('img_path', 'img_suffix'), ('seg_map_path', 'seg_map_suffix')):
        suffixes[key] = dataset.get(name, getattr(defaults.get(name), 'default', ''))
    listed = annotation_file(dataset) if dataset.get('ann_file') else None
    if listed is not None and not listed.is_dir():
        keys = folders.keys() & suffixes.keys()
        _check_lines(
            listed,
            lambda _, name: _first(
                _missing(folders[key] / f'{name}{suffixes[key]}') for key in sorted(keys)
            ),
        )
    elif 'img_path' in folders:
        folder, suffix = folders['img_path'], suffixes['img_path']
        _require(folder, f'{where}.data_prefix.img_path', dataset, Path.is_dir)
        if not any(folder.rglob(f'*{suffix}')):
            raise InputError(
                f'{where}: below {folder} there is no image whose name ends in {suffix}'
            )


def _check_clips(dataset: dict, cfg: Config, frames: bool) -> None:
    """Checks an MMAction2 list of videos, or of folders of frames."""
    listed, folders = annotation_file(dataset), _folders(dataset)
    if listed is None:
        return
    classes = dataset.get('num_classes') or _num_classes(cfg, 'cls_head')
    offset = frames and bool(dataset.get('with_offset'))
    expected = 'FILE LABEL'
    if frames:
        expected = 'FOLDER FIRST_FRAME FRAMES LABEL' if offset else 'FOLDER FRAMES LABEL'
    entries = len(expected.split())

    def missing(name: str, exists: Callable[[Path], bool] = Path.is_file) -> str | None:
        folder = folders.get('img' if frames else 'video')
        return folder and _missing(folder / name, exists)

    def missing_frames(folder: str, first: str, count: str) -> str | None:
        if not first.isdigit():
            return f'the first frame {first!r} is not a number; a line is {expected}'
        if not count.isdigit() or int(count) == 0:
            return f'the number of frames is not a positive integer; a line is {expected}'
        problem = missing(folder, Path.is_dir)
        if problem or dataset.get('modality', 'RGB') != 'RGB':
            return problem  # the file names of optical flow have a direction in them, too
        start = dataset.get('start_index', 1) + int(first)
        template = dataset.get('filename_tmpl', 'img_{:05}.jpg')
        ends = (start, start + int(count) - 1)
        return _first(missing(f'{folder}/{template.format(index)}') for index in ends)

    def problem_of(_: int, line: str) -> str | None:
        # As the library splits: a video's line at each single space, a frame folder's at any.
        words = line.split(dataset.get('delimiter') or (None if frames else ' '))
        if len(words) < entries:
            return (
                f'{len(words)} of {entries} entries: a line is {expected}, and the label may be '
                f'missing'
            )
        if len(words) > entries and not dataset.get('multi_class'):
            return f'{len(words)} entries: a line is {expected}, with one label'
        if frames:
            problem = missing_frames(words[0], words[1] if offset else '0', words[entries - 2])
        else:
            problem = missing(words[0])
        labels = words[entries - 1 :]
        return problem or _first(_wrong_label(x, classes, 'cls_head', expected) for x in labels)

    _check_lines(listed, problem_of)


def _check_labelled_images(dataset: dict, where: str, cfg: Config) -> None:
    """Checks MMPretrain's list of images with labels, or the folders of the classes."""
    if not dataset.get('with_label', True) or dataset.get('split') == 'test':
        return
    root, split = dataset.get('data_root') or '', dataset.get('split') or ''
    prefix = dataset.get('data_prefix') or split
    folder = _joined(root, prefix.get('img_path', '') if isinstance(prefix, dict) else prefix)
    if folder is None:
        return
    _require(folder, where, dataset, Path.is_dir)
    names = (dataset.get('metainfo') or {}).get('classes') or own_classes(dataset, cfg)
    head = _num_classes(cfg, 'head')
    listed = _joined(root, dataset.get('ann_file') or f'meta/{split}.txt')
    if listed is None or not listed.is_file():
        _check_class_folders(folder, where, names, head)
        return

    def problem_of(number: int, line: str) -> str | None:
        name, _, label = line.rpartition(' ')
        if not name:
            return 'there is no label; a line is FILE LABEL'
        problem = _wrong_label(label, head or (names and len(names)), 'head', 'FILE LABEL')
        return problem or (_missing(folder / name) if number <= FILES_LOOKED_FOR else None)

    _check_lines(listed, problem_of)


def _check_class_folders(
    folder: Path, where: str, names: list[str] | None, head: int | None
) -> None:
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not found:
        raise InputError(
            f'{where}: {folder} has no folders; it should have one for each class, with images'
        )
    if names is not None and len(names) != len(found):
        stage, shown = where.partition('_')[0], ','.join(map(repr, found[:3]))
        raise InputError(
            f'{where}: {folder} has {len(found)} folders, and the dataset {len(names)} classes. To '
            f'train on these {len(found)} as classes of their own, name them in all datasets '
            f'(--cfg-options "{stage}_dataloader.dataset.metainfo.classes=({shown},...)") and set '
            f'model.head.num_classes={len(found)}; to keep the {len(names)} classes, list '
            f'files and labels in {folder.parent / "meta" / folder.name}.txt'
        )
    if head is not None and head < len(found):
        raise InputError(
            f'{where}: {folder} has {len(found)} folders, one for each class, and the model '
            f'num_classes={head}: set model.head.num_classes={len(found)}'
        )
    for name in found:
        if _time_is_over():
            return
        if not any(islice((folder / name).rglob('*'), 1)):
            raise InputError(f'{where}: {folder / name} is empty; it should hold images of a class')
