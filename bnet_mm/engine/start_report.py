"""Logs the norms of a model, which of them train, and where the weights come from."""

from __future__ import annotations

from collections import Counter

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.engine.weights import check_weights
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.openmmlab.leftovers import frozen_by_stages, norm_warnings


class StartReportHook(Hook):
    """Logs before the first step the norms, what of them trains, and where the weights come from.

    And a WARNING for each thing in the config that keeps BNET from training. Before a test it logs
    the weights.

    Raises:
        InputError: a file of weights was named and nothing of it was loaded.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for line in (describe_norms(model), describe_training(model)):
            runner.logger.info(line)
        self.say_weights(runner)
        frozen = frozen_by_stages(model, runner.cfg.get('model'))
        if frozen:
            runner.logger.info(frozen)
        for line in norm_warnings(model, runner.cfg.get('model')):
            runner.logger.warning(line)

    def before_test(self, runner: Runner) -> None:
        self.say_weights(runner)

    def say_weights(self, runner: Runner) -> None:
        """Logs a line for each file of weights."""
        for warning, line in check_weights(runner):
            (runner.logger.warning if warning else runner.logger.info)(line)


def describe_norms(model: nn.Module) -> str:
    """Returns how many norms of which kind a model has, and where the enhanced ones are.

    Examples:
        >>> from bnet_mm import BNET
        >>> describe_norms(nn.Sequential(nn.BatchNorm2d(4), BNET(4, k=3), BNET(4, k=5)))
        'Norms: 1 BNET-3, 1 BNET-5 (1 ... 2); plain: 1 BatchNorm2d'
    """
    enhanced, plain, names = Counter(), Counter(), []
    for name, norm in named_norms(model):
        kind = type(norm).__name__
        if isinstance(norm, EnhancedNorm):
            dilation = f' dilation {norm.dilation}' if norm.dilation > 1 else ''
            enhanced[f'{kind}-{norm.k}{dilation}'] += 1
            names.append(name)
        else:
            plain[kind] += 1
    others = _counted(plain) or 'none'
    if not enhanced:
        return f'Norms: no BNET in this model; {others}'
    return f'Norms: {_counted(enhanced)} ({names[0]} ... {names[-1]}); plain: {others}'


def _counted(kinds: Counter) -> str:
    return ', '.join(f'{count} {kind}' for kind, count in kinds.items())


def describe_training(model: nn.Module) -> str:
    """Returns how many kernels train and how many norms have frozen statistics in training."""
    enhanced = [norm for _, norm in named_norms(model, EnhancedNorm)]
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    was_training = model.training
    model.train()  # norm_eval and frozen_stages take effect here, as in the first step
    frozen = sum(not m.training for m in norms)
    model.train(was_training)
    trained = sum(m.dw.weight.requires_grad for m in enhanced)
    return (
        f'Training: {trained} of {len(enhanced)} BNET kernels; batch statistics frozen in '
        f'{frozen} of {len(norms)} norms'
    )
