"""Says at the start of a training which norm stands where and what the weights start from."""

from collections import Counter

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.layers import EnhancedNorm, is_plain_norm
from bnet_mm.openmmlab.config import pretrained_sources


class StartReportHook(Hook):
    """Logs three lines before the first step: the norms, what of them trains, the weights."""

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for line in (describe_norms(model), describe_training(model), describe_weights(runner)):
            runner.logger.info(line)


def describe_norms(model: nn.Module) -> str:
    """Returns how many norms of which kind a model has, and where the enhanced ones stand."""
    kinds, plain, first, last = Counter(), Counter(), None, None
    inner = set()
    for name, module in model.named_modules():
        if isinstance(module, EnhancedNorm):
            spread = f' dilation {module.dilation}' if module.dilation > 1 else ''
            kinds[f'{type(module).__name__}-{module.k}{spread}'] += 1
            first, last = first or name, name
            inner.update(id(m) for m in module.norm.modules())
        elif is_plain_norm(module) and id(module) not in inner:
            inner.update(id(m) for m in module.modules())  # a switchable norm has one inside
            plain[type(module).__name__] += 1
    others = ', '.join(f'{n} {kind}' for kind, n in plain.items()) or 'none'
    if not kinds:
        return f'Norms: no BNET in this model; {others}'
    enhanced = ', '.join(f'{n} {kind}' for kind, n in kinds.items())
    return f'Norms: {enhanced} ({first} ... {last}); plain: {others}'


def describe_training(model: nn.Module) -> str:
    """Returns which kernels train and whether statistics are frozen, once the model trains."""
    enhanced = [m for m in model.modules() if isinstance(m, EnhancedNorm)]
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    was_training = model.training
    model.train()  # norm_eval and frozen_stages take effect here, as they will in the first step
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
            'start; training from scratch wants model.backbone.norm_eval=False and '
            'model.backbone.frozen_stages=-1'
        )
    return line
