"""Builds a config's dataset by itself, without a loader or a model."""

import sys
from contextlib import redirect_stdout

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import Dataset

from bnet_mm.engine.data import check_data, explain_failure
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import check_library, config_errors


def build_dataset(cfg: Config, stage: str) -> Dataset:
    """Returns the dataset of `cfg` for a stage, with at least one sample.

    Args:
        cfg: a whole config of any OpenMMLab library.
        stage: 'train', 'val' or 'test'.

    Raises:
        InputError: it is missing, empty or cannot be built.
    """
    loader = cfg.get(f'{stage}_dataloader')
    if not loader:
        raise InputError(f'the config has no {stage}_dataloader')
    check_library(cfg.get('default_scope'))
    check_data(cfg, (stage,))
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    # What pycocotools says while it reads is no result of a command line.
    with config_errors(), redirect_stdout(sys.stderr):
        try:
            dataset = DATASETS.build(loader.dataset)
        except Exception as error:
            sentence = explain_failure(cfg, error)
            if sentence is None:
                raise
            raise InputError(sentence) from error
    if not len(dataset):
        raise InputError(f'the {stage} dataset has no sample')
    return dataset


def files_of(dataset: Dataset, count: int) -> list[str]:
    """Returns the files of a dataset's first pictures or videos, as far as it names such files."""
    while not hasattr(dataset, 'get_data_info') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset  # repeated or balanced
    if not hasattr(dataset, 'get_data_info'):
        return []
    infos = (dataset.get_data_info(index) for index in range(min(count, len(dataset))))
    paths = (info.get('img_path', info.get('filename')) for info in infos)
    return [str(path) for path in paths if path is not None]
