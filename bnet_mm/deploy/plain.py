"""Models of torch's own modules alone, for exporters, tracers and quantizers that know no others.

A norm in one module with its activation comes apart first, so that it can be folded; afterwards
every module of this package becomes the stock modules that compute the same.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from bnet_mm.deploy.structure import FixedNorm, Taps, is_watched, replace
from bnet_mm.errors import InputError
from bnet_mm.layers import BNControl, DepthwiseTransform, EnhancedNorm
from bnet_mm.models.norms import FROZEN, WITH_ACTIVATION, FrozenStatistics, NormAct, without_parts
from bnet_mm.models.swapping import swap_back


def split_norms(model: nn.Module) -> list[str]:
    """Takes norms apart from the activations in them, and returns their names.

    Of timm's `BatchNormAct2d`, and of BNET in its place; a frozen batch norm, of torchvision's or
    detectron2's kind, becomes a batch norm in evaluation mode. Each becomes a
    `Sequential(norm, drop, act)` under its old name.
    """
    names = [name for name, module in model.named_modules() if name and _comes_apart(module)]
    for name in names:
        split_norm(model, name)
    return names


def split_norm(model: nn.Module, name: str) -> None:
    """Does so with one norm.

    Raises:
        InputError: there is no such norm.
    """
    try:
        norm: Any = model.get_submodule(name)
    except AttributeError as error:
        raise InputError(f'the model has no {name}') from error
    if not _comes_apart(norm):
        raise InputError(f'{name} is no norm with an activation, and no frozen one')
    parts = OrderedDict((part, getattr(norm, part, None)) for part in ('drop', 'act'))
    if isinstance(norm, NormAct):
        new: Any = norm
        swap_back(new)
        del new.drop, new.act
    else:
        new = without_parts(norm)
    kept = {part: module for part, module in parts.items() if type(module) is not nn.Identity}
    kept = {part: module for part, module in kept.items() if module is not None}
    after = nn.Sequential(OrderedDict(norm=new, **kept)).train(norm.training)
    replace(model, norm, after)


def make_plain(model: nn.Module) -> dict[str, str]:
    """Puts stock modules in the place of this package's, and returns which stayed, and why."""
    for module in list(model.modules()):
        new = _stock_of(module)
        if new is not None:
            replace(model, module, new)
    return {
        name: f'{type(module).__name__} has no form in modules of torch alone'
        for name, module in model.named_modules()
        if type(module).__module__.partition('.')[0] == __name__.partition('.')[0]
    }


def _comes_apart(module: nn.Module) -> bool:
    if is_watched(module):
        return False
    if isinstance(module, NormAct):
        return True
    kind = type(module).__name__
    return kind in FROZEN or (
        kind in WITH_ACTIVATION and isinstance(module, nn.modules.batchnorm._BatchNorm)
    )


def _stock_of(module: Any) -> nn.Module | None:
    """Returns what a module of this package is in torch's modules; None for any other."""
    if is_watched(module):
        return None
    if isinstance(module, Taps):
        new: nn.Module = _convolution_of(module)
    elif type(module).forward is EnhancedNorm.forward and isinstance(module, EnhancedNorm):
        inner = _stock_norm_of(module.norm)
        if inner is None:
            return None
        new = nn.Sequential(OrderedDict(norm=inner, dw=_convolution_of(module.dw)))
    elif type(module) is BNControl:
        parts = [_stock_norm_of(module.norm) or module.norm, module.relu, module.conv]
        new = nn.Sequential(OrderedDict(zip(('norm', 'relu', 'conv'), parts)))
    elif isinstance(module, (FixedNorm, FrozenStatistics)):
        return _stock_norm_of(module)
    else:
        return None
    return new.train(module.training)


def _convolution_of(kernel: DepthwiseTransform) -> nn.Conv2d:
    channels, k = kernel.weight.shape[0], kernel.weight.shape[-1]
    conv = nn.Conv2d(
        *(channels, channels, k),
        padding=kernel.padding,
        dilation=kernel.dilation,
        groups=channels,
        device='meta',
    )
    conv.weight, conv.bias = kernel.weight, kernel.bias
    return conv


def _stock_norm_of(norm: Any) -> nn.Module | None:
    """Returns a stock norm with the same tensors, or None where there is none of its kind."""
    if isinstance(norm, nn.GroupNorm):
        new: Any = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps, affine=False)
    elif isinstance(norm, nn.InstanceNorm2d):
        tracked = norm.track_running_stats
        new = nn.InstanceNorm2d(norm.num_features, norm.eps, track_running_stats=tracked)
    elif isinstance(norm, (nn.modules.batchnorm._BatchNorm, FixedNorm)):
        channels = norm.running_mean.numel() if norm.running_mean is not None else None
        if channels is None:
            return None
        new = nn.BatchNorm2d(channels, norm.eps, affine=False)
    else:
        return None
    for name, buffer in norm._buffers.items():
        new._buffers[name] = buffer
    for name in ('weight', 'bias'):
        own = norm._parameters.get(name)
        if own is None and isinstance(new, nn.BatchNorm2d):
            # Torch's quantization reads the scale of a batch norm without asking for it.
            start = torch.ones if name == 'weight' else torch.zeros
            own = nn.Parameter(start(channels).to(norm.running_mean))
        if own is not None:
            new.affine = True
        new.register_parameter(name, own)
    return new.eval()
