"""Refuses training data that mmengine would fail on later, or train on without a word."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from bnet_mm.engine.inputs import explain_empty_dataset
from bnet_mm.errors import InputError


class DatasetCheckHook(Hook):
    """Checks before the first step that there are pictures and that the heads know their classes.

    Raises:
        InputError: the training dataset is empty, or a head has fewer classes than the dataset.
    """

    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        dataset = runner.train_loop.dataloader.dataset
        if hasattr(dataset, '__len__') and len(dataset) == 0:
            raise InputError(explain_empty_dataset(runner.cfg))
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        if classes is None:
            return
        if isinstance(classes, str):
            raise InputError(
                f'metainfo.classes is the text {classes!r}; a single class is written '
                f"metainfo.classes=('{classes}',)"
            )
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, module in model.named_modules():
            known = getattr(module, 'num_classes', None)
            # A region proposal head tells objects from background, whatever the classes.
            if isinstance(known, int) and known < len(classes) and not name.endswith('rpn_head'):
                raise InputError(
                    f'the training dataset has {len(classes)} classes and model.{name} has '
                    f'num_classes={known}; set model.{name}.num_classes={len(classes)}, or '
                    f'metainfo.classes of the datasets'
                )
