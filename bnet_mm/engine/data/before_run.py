"""What can be known of a run's data from its config, before anything is built."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from bnet_mm.engine.data.class_folders import check_class_folders
from bnet_mm.engine.data.config_walk import annotation_file, datasets, folders, joined
from bnet_mm.engine.data.lists import check_list
from bnet_mm.errors import InputError

# What `tools/make_demo_data.py` draws, by a name that is part of the dataset's class.
DRAWN = {
    'Coco': 'coco',
    'Cityscapes': 'cityscapes',
    'VOC': 'voc',
    'Video': 'ucf101',
    'ImageNet': 'imagenet',
}


def check_data(cfg: Config, stages: tuple[str, ...]) -> None:
    """Looks for the files and folders that the `stages` name, and into lists of pictures and clips.

    Raises:
        InputError: the first that is missing, empty, or has a line that cannot be used.
    """
    for stage in stages:
        for where, path in _data_paths(cfg, stage):
            if not path.exists():
                raise InputError(
                    f'{where}: there is nothing at {path.absolute()}; link or copy the dataset '
                    f'there, or name another folder with --cfg-options data_root=FOLDER'
                    + _how_to_draw(str(cfg.get(where.partition('.')[0])))
                )
        for dataset, where in datasets(cfg, stage):
            check_list(cfg, dataset, where)
            check_class_folders(cfg, dataset, where)


def _data_paths(cfg: Config, stage: str) -> Iterator[tuple[str, Path]]:
    """Yields each local file and folder that a stage's datasets and evaluators will read."""
    for dataset, where in datasets(cfg, stage):
        path = annotation_file(dataset)
        if path is not None:
            yield f'{where}.ann_file', path
        for key, path in folders(dataset):
            yield f'{where}.data_prefix.{key}'.rstrip('.'), path
    evaluators = cfg.get(f'{stage}_evaluator')
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        path = joined(None, (evaluator or {}).get('ann_file'))
        if path is not None:
            yield f'{stage}_evaluator.ann_file', path


def _how_to_draw(loader: str) -> str:
    for name, layout in DRAWN.items():
        if f"'type': '{name}" in loader or f'{name}Dataset' in loader:
            return (
                f'; `python tools/make_demo_data.py {layout} --out data` draws a small one in its '
                f'layout'
            )
    return ''
