"""Checks built datasets before the first step: masks, clips, and classes of the heads."""

from __future__ import annotations

import re

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bnet_mm.engine.data.files import explain_annotations, explain_classes
from bnet_mm.engine.data.samples import find_bad_sample, leaves
from bnet_mm.errors import InputError

# Small datasets are checked whole; a large one must not cost minutes at every start. A sample that
# was not checked is named when it fails.
SECONDS = 60
HEADS = re.compile(r'\b(bbox_head|mask_head|decode_head|auxiliary_head|cls_head)(\.\d+)?$')


class DatasetCheckHook(Hook):
    """Checks before the first step that every mask and clip can be used and the heads fit.

    Raises:
        InputError: a dataset is empty, a head has fewer classes than its dataset, a mask has an id
            beyond the classes or another size than its image, or a video does not decode.
    """

    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        dataset = runner.train_loop.dataloader.dataset
        if hasattr(dataset, '__len__') and len(dataset) == 0:
            raise InputError(explain_annotations(runner.cfg, empty=True))
        _check_heads(runner, getattr(dataset, 'metainfo', None) or {})
        _check_samples(runner, dataset)
        if runner.val_loop is not None:
            _check_samples(runner, runner.val_loop.dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        _check_samples(runner, runner.test_loop.dataloader.dataset)


def _check_samples(runner: Runner, whole: object) -> None:
    if not is_main_process():  # an error there ends the job
        return
    for dataset in leaves(whole):
        sentence, checked = find_bad_sample(dataset, SECONDS)
        if sentence:
            raise InputError(f'{type(dataset).__name__}: {sentence}')
        if checked < len(dataset):
            runner.logger.info(
                f'{type(dataset).__name__}: {checked} of {len(dataset)} samples were checked in '
                f'{SECONDS} s and are in order; the others will be named if they fail'
            )


def _check_heads(runner: Runner, metainfo: dict) -> None:
    classes = metainfo.get('classes')
    if classes is None or 'stuff_classes' in metainfo:  # panoptic: each head has its share
        return
    problem = explain_classes(classes, 'the training dataset')
    if problem:
        raise InputError(problem)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for name, module in model.named_modules():
        known = getattr(module, 'num_classes', None)
        if HEADS.search(name) and isinstance(known, int) and known < len(classes):
            raise InputError(
                f'the training dataset has {len(classes)} classes and model.{name} has '
                f'num_classes={known}; set model.{name}.num_classes={len(classes)}, or '
                f'metainfo.classes of the datasets'
            )
