"""Pictures in a folder for each class, or in a list with their classes (MMPretrain's ImageNet)."""

from itertools import islice
from pathlib import Path

from mmengine.config import Config

from bnet_mm.engine.data.config_walk import dataset_class, joined
from bnet_mm.engine.data.lists import lines_of
from bnet_mm.errors import InputError

# So many files of a list are looked for: ImageNet's 1.3 million would take minutes on some disks.
FILES_LOOKED_FOR = 20000


def check_class_folders(cfg: Config, dataset: dict, where: str) -> None:
    """Checks folders and list of a dataset of labelled pictures; datasets of other kinds pass.

    Args:
        cfg: the whole config.
        dataset: the dataset's config.
        where: where that stands in `cfg`.

    Raises:
        InputError: the folder is missing or has no folders of classes, there are more or less of
            these than classes, or a line of the list has no file, no label or one beyond the
            classes.
    """
    kind = dataset_class(dataset, cfg.get('default_scope'))
    if not any(base.__module__ == 'mmpretrain.datasets.custom' for base in kind.__mro__):
        return
    if not dataset.get('with_label', True) or dataset.get('split') == 'test':
        return
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    prefix = prefix.get('img_path', '') if isinstance(prefix, dict) else prefix
    folder = joined(dataset.get('data_root') or '', prefix)
    if folder is None:
        return
    if not folder.is_dir():
        raise InputError(
            f'{where}: there is no folder {folder.absolute()}; link or copy the dataset there, or '
            f'name another with --cfg-options data_root=FOLDER; `python tools/make_demo_data.py '
            f'imagenet --out data` draws a small one in its layout'
        )
    names = (dataset.get('metainfo') or {}).get('classes') or kind.METAINFO.get('classes')
    head = ((cfg.get('model') or {}).get('head') or {}).get('num_classes')
    listed = dataset.get('ann_file') or f'meta/{dataset.get("split")}.txt'
    listed = joined(dataset.get('data_root') or '', listed)
    if listed is not None and listed.is_file():
        _check_list(folder, listed, head or (names and len(names)))
    else:
        _check_folders(folder, where, names, head)


def _check_list(folder: Path, listed: Path, classes: int | None) -> None:
    for number, line in lines_of(listed):
        name, _, label = line.strip().rpartition(' ')
        problem = None
        if not name or not label.isdigit():
            problem = 'a line is FILE LABEL, with the number of a class, counted from 0'
        elif classes is not None and int(label) >= classes:
            problem = (
                f'label {label} is out of range: the {classes} classes are counted from 0 to '
                f'{classes - 1} (model.head.num_classes)'
            )
        elif number <= FILES_LOOKED_FOR and not (folder / name).is_file():
            problem = f'there is no file {folder / name}'
        if problem:
            raise InputError(f'{listed}, line {number} ({line.strip()!r}): {problem}')


def _check_folders(folder: Path, where: str, names: list[str] | None, head: int | None) -> None:
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not found:
        raise InputError(
            f'{where}: {folder} has no folders; it should have one for each class, with pictures'
        )
    if names is not None and len(names) != len(found):
        stage = where.partition('_')[0]
        shown = ','.join(repr(name) for name in found[:3])
        raise InputError(
            f'{where}: {folder} has {len(found)} folders, and the dataset {len(names)} classes. To '
            f'train on these {len(found)} as classes of their own, name them in all datasets '
            f'(--cfg-options "{stage}_dataloader.dataset.metainfo.classes=({shown},...)") and set '
            f'model.head.num_classes={len(found)}; to keep the {len(names)} classes, list files '
            f'and labels in {folder.parent / "meta" / folder.name}.txt'
        )
    if head is not None and head < len(found):
        raise InputError(
            f'{where}: {folder} has {len(found)} folders, one for each class, and the model '
            f'num_classes={head}: set model.head.num_classes={len(found)}'
        )
    empty = next((name for name in found if not any(islice((folder / name).rglob('*'), 1))), None)
    if empty:
        raise InputError(f'{where}: {folder / empty} is empty, and should hold pictures of a class')
