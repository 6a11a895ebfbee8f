"""Whether the classes of the datasets and of the heads of a run fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from bnet_mm.engine.data.samples import some
from bnet_mm.openmmlab.config import walk

HEADS = re.compile(r'\b(bbox_head|mask_head|decode_head|auxiliary_head|cls_head)(\.\d+)?$')


def class_findings(cfg: Config, built: dict[str, object]) -> Iterator[str]:
    """Yields where the classes of the heads and of the stages do not fit together.

    Args:
        cfg: the config of a run.
        built: the dataset of each stage.
    """
    metainfo = {stage: getattr(whole, 'metainfo', None) or {} for stage, whole in built.items()}
    classes = {stage: info.get('classes') for stage, info in metainfo.items()}
    given = classes.get('train')
    if given is not None and classes.get('val') and tuple(given) != tuple(classes['val']):
        yield (
            f'the training dataset has the classes {some(list(given))} and the validation dataset '
            f'{some(list(classes["val"]))}: labels of one are other things in the other; set '
            f'metainfo.classes of all datasets to the same'
        )
    if given is None or 'stuff_classes' in metainfo['train']:  # panoptic: each head has its share
        return
    problem = explain_classes(given, 'the training dataset')
    if problem:
        yield problem
        return
    for where, node in walk(cfg.get('model'), 'model'):
        known = node.get('num_classes') if isinstance(node, dict) else None
        if HEADS.search(where) and isinstance(known, int) and known < len(given):
            yield (
                f'the training dataset has {len(given)} classes and {where} has '
                f'num_classes={known}; set {where}.num_classes={len(given)}, or metainfo.classes '
                f'of the datasets'
            )


def explain_classes(classes: object, where: str) -> str | None:
    """Returns what is wrong with class names given as one text, unless it is a file of names."""
    if not isinstance(classes, str) or Path(classes).is_file():
        return None
    return (
        f'{where}: metainfo.classes is the text {classes!r}; a single class is written '
        f"metainfo.classes=('{classes}',)"
    )
