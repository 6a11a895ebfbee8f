"""Finds the file that made building a dataset, or running on it, fail."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from traceback import extract_tb

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import Dataset

from bnet_mm.engine.data.files import STAGES, check_data, explain_annotations
from bnet_mm.engine.data.samples import find_bad_sample, leaves
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import check_library, config_errors


def explain_failure(cfg: Config, error: Exception) -> str | None:
    """Returns a sentence that says what is wrong with the data, or None if it may not be at fault.

    Args:
        cfg: the config of the run that failed.
        error: the exception; that of a data worker has its whole traceback as the text.
    """
    text = str(error).strip()
    if isinstance(error, FileNotFoundError):
        return f'a file that the run reads is missing: {text.splitlines()[-1]}'
    # A worker's text has the line of the library's source in it, before the message itself.
    unreadable = re.findall(r'failed to load image: (.+)', text)
    if unreadable:
        return f'{unreadable[-1]} cannot be read as an image: it is cut off or no image'
    if isinstance(error, (ValueError, KeyError, TypeError, AssertionError)):
        # The libraries fail on a broken annotation file in as many ways as it can be broken. An
        # empty list fails where mmengine packs it; elsewhere the same message has other causes.
        frames = extract_tb(error.__traceback__)
        return explain_annotations(cfg, empty=any(f.name == '_serialize_data' for f in frames))
    # A label beyond the classes (on a CPU, on a GPU), or a video that ffmpeg gives up on.
    if re.search(r'out of bounds|device-side assert|decord|Error reading|No video', text, re.I):
        return _bad_sample(cfg)
    return None


def _bad_sample(cfg: Config) -> str | None:
    for stage in STAGES:
        dataset = (cfg.get(f'{stage}_dataloader') or {}).get('dataset')
        if dataset is None:
            continue
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            built = registry.build(dataset)
        for leaf in leaves(built):
            sentence, _ = find_bad_sample(leaf)
            if sentence:
                return sentence
    return None


def build_dataset(cfg: Config, stage: str) -> Dataset:
    """Returns the dataset of a config for a stage, without a loader, with at least one sample.

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
    # What pycocotools prints while it reads is not part of a tool's output.
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
