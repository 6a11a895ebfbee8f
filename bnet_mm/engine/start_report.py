"""Logs the norms of a model, which of them train, and where the weights come from."""

from __future__ import annotations

from collections import Counter

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.openmmlab.config import pretrained_sources
from bnet_mm.openmmlab.leftovers import frozen_by_stages, norm_warnings


class StartReportHook(Hook):
    """Logs three lines before the first step: the norms, what of them trains, the weights.

    And a WARNING for each thing in the config that keeps BNET from training.
    """

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for line in (describe_norms(model), describe_training(model), describe_weights(runner)):
            runner.logger.info(line)
        frozen = frozen_by_stages(model, runner.cfg.get('model'))
        if frozen:
            runner.logger.info(frozen)
        for line in norm_warnings(model, runner.cfg.get('model')):
            runner.logger.warning(line)


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


def describe_weights(runner: Runner) -> str:
    """Returns where a training's weights come from."""
    load_from = runner.cfg.get('load_from')
    if load_from and runner.cfg.get('resume'):
        return f'Weights: all, with the optimizer, resumed from {load_from}'
    if load_from:
        return f'Weights: all, loaded from {load_from}'
    model = runner.cfg.get('model') or {}
    for where, source in pretrained_sources(model):
        part = 'all' if where.startswith('model.init_cfg') else 'backbone'
        rest = '' if part == 'all' else ', the rest from random values'
        return f'Weights: {part} from {source}{rest}'
    backbone = model.get('backbone') or {}
    line = 'Weights: all from random values'
    if backbone.get('norm_eval') or backbone.get('frozen_stages', -1) >= 0:
        line += (
            '. WARNING: norm_eval or frozen_stages keep a part of this backbone at its random '
            'initialization; to train from scratch set model.backbone.norm_eval=False and '
            'model.backbone.frozen_stages=-1'
        )
    return line
