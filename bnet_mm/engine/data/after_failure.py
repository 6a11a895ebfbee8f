"""Says which file of the data made a run fail, where that is the cause."""

import re
from traceback import extract_tb

from mmengine.config import Config
from mmengine.registry import DATASETS

from bnet_mm.engine.data.coco import explain_bad_annotations, explain_empty_dataset
from bnet_mm.engine.data.config_walk import STAGES
from bnet_mm.engine.data.samples import find_bad_sample, leaves


def explain_failure(cfg: Config, error: Exception) -> str | None:
    """Returns a sentence that names what is wrong with the data, or None if it may not be at fault.

    Args:
        cfg: the config of the run that failed.
        error: what it failed with; a data worker hands its whole traceback over as the text.
    """
    text = str(error).strip()
    if isinstance(error, FileNotFoundError):
        return f'a file that the run reads is missing: {text.splitlines()[-1]}'
    # A worker's text has the line of the library's source in it, before the message itself.
    unreadable = re.findall(r'failed to load image: (.+)', text)
    if unreadable:
        return f'{unreadable[-1]} cannot be read as a picture: it is cut off or no picture'
    if isinstance(error, (ValueError, KeyError, TypeError, AssertionError)):
        # The libraries fail on a broken annotation file in as many ways as it can be broken.
        sentence = explain_bad_annotations(cfg)
        # mmengine, packing the list of no pictures; others stack nothing for other reasons.
        packing = any(f.name == '_serialize_data' for f in extract_tb(error.__traceback__))
        if sentence is None and packing:
            sentence = explain_empty_dataset(cfg)
        return sentence
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
