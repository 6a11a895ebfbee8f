"""Finds the file that made building a dataset, or running on it, fail."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from traceback import extract_tb

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import Dataset

from bnet_mm.engine.data.annotations import EVALUATED, explain_annotations, look_at_annotations
from bnet_mm.engine.data.classes import class_findings
from bnet_mm.engine.data.files import STAGES, explain_files
from bnet_mm.engine.data.samples import leaves, look
from bnet_mm.errors import ExplainedError, InputError
from bnet_mm.openmmlab.libraries import check_library, config_errors


def explained(error: Exception, sentence: str) -> InputError:
    """Returns what to raise from an error; a missing file needs no traceback to be understood."""
    known = isinstance(error, FileNotFoundError)
    return InputError(sentence) if known else ExplainedError(sentence)


# Of the places in which reading data fails.
READING = re.compile(r'[/\\\\](datasets|evaluation|pycocotools|transforms|json|mmcv)[/\\\\]')
EVALUATING = re.compile(r'[/\\\\]evaluation[/\\\\]')


def explain_failure(cfg: Config, error: Exception) -> str | None:
    """Returns a sentence that says what is wrong with the data, or None if it may not be at fault.

    Args:
        cfg: the config of the run that failed.
        error: the exception; that of a data worker has its whole traceback as the text.
    """
    text = str(error).strip()
    frames = extract_tb(error.__traceback__)
    if isinstance(error, FileNotFoundError):
        gone = str(error.filename or text.splitlines()[-1])
        missing = explain_files(cfg, STAGES, gone)
        return missing or f'a file that the run reads is missing: {text.splitlines()[-1]}'
    # A worker's text has the line of the library's source in it, before the message itself.
    unreadable = re.findall(r'failed to load image: (.+)', text)
    if unreadable:
        return f'{unreadable[-1]} cannot be read as an image: it is cut off or no image'
    if isinstance(error, KeyError) and error.args and error.args[0] in EVALUATED:
        for finding in look_at_annotations(cfg, STAGES, seconds=60):
            if f"'{error.args[0]}'" in finding.text:
                return finding.text
    if isinstance(error, (ValueError, KeyError, TypeError, AssertionError, IndexError)):
        # The libraries fail on a broken annotation file in as many ways as it can be broken. An
        # empty list fails where mmengine packs it; elsewhere the same message has other causes.
        reading = any(READING.search(frame.filename) for frame in frames) or READING.search(text)
        if reading or not frames:
            empty = any(frame.name == '_serialize_data' for frame in frames)
            found = explain_annotations(cfg, empty=empty) or explain_files(cfg, STAGES)
            if found:
                return found
        if any(EVALUATING.search(frame.filename) for frame in frames):
            # Labels that the evaluation's classes do not have.
            return next(class_findings(cfg, _built(cfg)), None)
    # A label beyond the classes (on a CPU, on a GPU), or a video that ffmpeg gives up on.
    if re.search(r'out of bounds|device-side assert|decord|Error reading|No video', text, re.I):
        return _bad_sample(cfg)
    return None


def _built(cfg: Config) -> dict[str, Dataset]:
    built = {}
    for stage in STAGES:
        dataset = (cfg.get(f'{stage}_dataloader') or {}).get('dataset')
        if dataset is not None:
            with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
                built[stage] = registry.build(dataset)
    return built


def _bad_sample(cfg: Config) -> str | None:
    built = _built(cfg)
    findings = look([(stage, leaf) for stage, one in built.items() for leaf in leaves(one)], None)
    findings.sort(key=lambda finding: not finding.ends_run)
    told = (*(finding.text for finding in findings), *class_findings(cfg, built))
    return next(iter(told), None) or explain_files(cfg, STAGES)


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
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    # What pycocotools prints while it reads is not part of a tool's output.
    with config_errors(), redirect_stdout(sys.stderr):
        try:
            dataset = DATASETS.build(loader.dataset)
        except Exception as error:
            sentence = explain_failure(cfg, error)
            if sentence is None:
                raise
            raise explained(error, sentence) from error
    if not len(dataset):
        raise InputError(f'the {stage} dataset has no sample')
    return dataset
