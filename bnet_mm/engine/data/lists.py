"""Text files that list pictures (MMSegmentation) or clips (MMAction2), one a line."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.config import Config

from bnet_mm.engine.data.config_walk import annotation_file, dataset_class, folders
from bnet_mm.errors import InputError


def check_list(cfg: Config, dataset: dict, where: str) -> None:
    """Checks the list of a picture or clip dataset; datasets of other kinds pass.

    Args:
        cfg: the whole config.
        dataset: the dataset's config.
        where: where that stands in `cfg`.

    Raises:
        InputError: the list is empty, a line lacks something or has it wrong, or what it lists is
            not there; the message names file and line.
    """
    kind = dataset_class(dataset, cfg.get('default_scope'))
    bases = {base.__name__ for base in kind.__mro__}
    if 'BaseSegDataset' in bases:
        _check_pictures(dataset, where, kind)
    elif 'VideoDataset' in bases:
        _check_clips(cfg, dataset, where, _video)
    elif 'RawframeDataset' in bases:
        _check_clips(cfg, dataset, where, _frames)


def _check_pictures(dataset: dict, where: str, kind: type) -> None:
    defaults = inspect.signature(kind).parameters

    def entry(key: str) -> str:
        return dataset.get(key, getattr(defaults.get(key), 'default', ''))

    folder_of = dict(folders(dataset))
    listed = annotation_file(dataset) if dataset.get('ann_file') else None
    if listed is None or listed.is_dir():
        pictures = folder_of.get('img_path')
        if pictures and not any(pictures.rglob(f'*{entry("img_suffix")}')):
            raise InputError(
                f'{where}: below {pictures} there is no picture whose name ends in '
                f'{entry("img_suffix")}'
            )
        return
    for number, line in lines_of(listed):
        for key, suffix in (('img_path', 'img_suffix'), ('seg_map_path', 'seg_map_suffix')):
            path = folder_of.get(key) and folder_of[key] / f'{line.strip()}{entry(suffix)}'
            if path and not path.is_file():
                raise InputError(f'{listed}, line {number}: there is no file {path}')


def _check_clips(
    cfg: Config, dataset: dict, where: str, check: Callable[[dict, list[str]], str | None]
) -> None:
    listed = annotation_file(dataset)
    if listed is None:
        return
    head = (cfg.get('model') or {}).get('cls_head') or {}
    classes = dataset.get('num_classes') or head.get('num_classes')
    delimiter = dataset.get('delimiter')
    for number, line in lines_of(listed):
        # As the library splits: a video's line at each single space, a frame folder's at any.
        words = line.strip().split(delimiter or (' ' if check is _video else None))
        problem = check(dataset, words) or _wrong_label(dataset, words, check, classes)
        if problem:
            raise InputError(f'{listed}, line {number} ({line.strip()!r}): {problem}')


def _video(dataset: dict, words: list[str]) -> str | None:
    expected = 'FILE LABEL'
    if len(words) == 1:
        return f'there is no label; a line is {expected}'
    if len(words) > 2 and not dataset.get('multi_class'):
        return f'{len(words)} entries where a line is {expected}'
    return _missing(dataset, 'video', words[0], Path.is_file)


def _frames(dataset: dict, words: list[str]) -> str | None:
    offset = bool(dataset.get('with_offset'))
    expected = 'FOLDER FIRST_FRAME FRAMES LABEL' if offset else 'FOLDER FRAMES LABEL'
    numbers = words[1 : 2 + offset]
    if len(words) < 3 + offset:
        return f'{len(words)} entries where a line is {expected}; the label may be missing'
    if offset and not numbers[0].isdigit():
        return f'the first frame {numbers[0]!r} is not a number; a line is {expected}'
    if not numbers[-1].isdigit() or int(numbers[-1]) == 0:
        return f'the number of frames is not a positive integer; a line is {expected}'
    missing = _missing(dataset, 'img', words[0], Path.is_dir)
    if missing:
        return missing
    first = dataset.get('start_index', 1) + (int(numbers[0]) if offset else 0)
    template = dataset.get('filename_tmpl', 'img_{:05}.jpg')
    if dataset.get('modality', 'RGB') != 'RGB':
        return None  # a flow's template takes a direction, too
    for index in (first, first + int(numbers[-1]) - 1):
        name = f'{words[0]}/{template.format(index)}'
        missing = _missing(dataset, 'img', name, Path.is_file)
        if missing:
            return missing
    return None


def _wrong_label(
    dataset: dict, words: list[str], check: Callable, classes: int | None
) -> str | None:
    before = 1 if check is _video else 2 + bool(dataset.get('with_offset'))
    labels = words[before:]
    if len(labels) > 1 and not dataset.get('multi_class'):
        return f'{len(labels)} labels where one is expected'
    for label in labels:
        if not label.isdigit():
            return f'the label {label!r} is not a number of a class, counted from 0'
        if classes is not None and int(label) >= classes:
            return (
                f'label {label} is out of range: the {classes} classes are counted from 0 to '
                f'{classes - 1} (model.cls_head.num_classes)'
            )
    return None


def _missing(dataset: dict, prefix: str, name: str, is_there: Callable[[Path], bool]) -> str | None:
    folder = dict(folders(dataset)).get(prefix)
    path = folder / name if folder is not None else None
    if path is None or is_there(path):
        return None
    return f'there is no {"file" if is_there is Path.is_file else "folder"} {path}'


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yields number and text of each line of a list.

    Raises:
        InputError: the file is empty or no text, or a line is blank, which the libraries would take
            for a nameless picture.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f'{path} is not a text file: {error}') from error
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    if not any(line.strip() for line in lines):
        raise InputError(f'{path} is empty: it should list one sample a line')
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f'{path}, line {number} is blank; take it out')
        yield number, line
