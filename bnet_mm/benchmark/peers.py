"""What is compared: plain batch normalization, the reference implementation (two lines), BNET."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnet_mm.layers import BNET, EnhancedNorm, SwitchNorm2d, named_norms

BN, TWO_LINES, OURS = 'BN', 'two lines', 'BNET'
COMPILED = 'two lines compiled'


class TwoLines(nn.Module):
    """Algorithm 1 of the paper as it is printed: a norm, then a depthwise convolution."""

    def __init__(self, norm: nn.Module, num_features: int, k: int, dilation: int = 1):
        super().__init__()
        self.bn = norm
        self.bnconv = nn.Conv2d(
            *(num_features, num_features, k),
            padding=dilation * (k // 2),
            dilation=dilation,
            groups=num_features,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.bnconv(self.bn(x))


def layer(peer: str, num_features: int, k: int) -> nn.Module:
    """Returns a layer of one of the peers."""
    if peer == BN:
        return nn.BatchNorm2d(num_features)
    if peer == TWO_LINES:
        return TwoLines(nn.BatchNorm2d(num_features, affine=False), num_features, k)
    return BNET(num_features, k=k)


def model_with(peer: str, model: nn.Module) -> nn.Module:
    """Returns a copy of a model with BNET that has `peer` in the place of each, at its start.

    Groups, dilation, eps and momentum are those of each BNET, and so is the kind of its norm.
    """
    model = copy.deepcopy(model)
    if peer == OURS:
        return model
    for name, norm in list(named_norms(model, EnhancedNorm)):
        new = _two_lines_of(norm) if peer == TWO_LINES else _norm_of(norm, affine=True)
        new.train(norm.norm.training).requires_grad_(norm.dw.weight.requires_grad)
        model.set_submodule(name, new)
    return model


def moved(model: nn.Module, frozen: Sequence[str] = ()) -> nn.Module:
    """Moves kernels and means off their start, as training does, and returns the model.

    A kernel of the start is a batch norm's scale, which deployment folds into the convolution.

    Args:
        model: with BNET or without.
        frozen: names of modules; kernels below them stay.
    """
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        stays = name.endswith('dw.weight') and any(name.startswith(f'{part}.') for part in frozen)
        if name.endswith(('dw.weight', 'running_mean')) and not stays:
            tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor), alpha=0.05)
    return model


def _two_lines_of(norm: EnhancedNorm) -> TwoLines:
    new = TwoLines(_norm_of(norm, affine=False), norm.num_features, norm.k, norm.dilation)
    new.bnconv.load_state_dict(norm.dw.state_dict(), strict=False)  # which also says its dilation
    return new


def _norm_of(norm: EnhancedNorm, affine: bool) -> nn.Module:
    """Returns a stock norm of the kind that a BNET normalizes with, and of its statistics."""
    inner, count = norm.norm, norm.num_features
    new: nn.Module
    if isinstance(inner, nn.GroupNorm):
        new = nn.GroupNorm(inner.num_groups, count, inner.eps, affine)
    elif isinstance(inner, SwitchNorm2d):
        new = SwitchNorm2d(count, eps=inner.eps) if affine else copy.deepcopy(inner)
    else:
        kinds = (nn.SyncBatchNorm, nn.BatchNorm2d, nn.InstanceNorm2d)
        kind = next(kind for kind in kinds if isinstance(inner, kind))
        tracked = inner.track_running_stats
        new = kind(count, inner.eps, inner.momentum, affine, tracked)
    new.load_state_dict(inner.state_dict(), strict=False)
    return new
