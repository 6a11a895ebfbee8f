"""Which norms can become BNET, and how: those of torch, and what other libraries have of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.layers import BNET, GNET, INET, SNET, EnhancedNorm, SwitchNorm2d, SyncBNET
from bnet_mm.layers.plain import BatchNorm2d
from bnet_mm.models.swapping import Swapped, swap

# Of timm: a norm, dropping and an activation in one module, by the names of its classes.
WITH_ACTIVATION = ('BatchNormAct2d', 'SyncBatchNormAct', 'FrozenBatchNormAct2d', 'GroupNormAct')
# Of torchvision, detectron2 and whoever copied it: statistics, scale and shift that are constants.
FROZEN = ('FrozenBatchNorm2d', 'FrozenBatchNormAct2d')


class NormAct(Swapped):
    """A BNET that ends in the activation of the norm in whose place it stands."""

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))  # type: ignore[misc, attr-defined]


class FrozenStatistics(BatchNorm2d):
    """A batch norm whose statistics are constants, in every mode."""

    def train(self, mode: bool = True) -> FrozenStatistics:
        """Stays in evaluation mode."""
        return super().train(False)


def problem_of(norm: nn.Module | None) -> str | None:
    """Returns why a module cannot become BNET, or None."""
    if norm is None:
        return 'does not exist'
    if isinstance(norm, EnhancedNorm):
        return 'is enhanced already'
    # Exact types: a subclass may do more than normalize. Two, known by name, only differ in how
    # they check the input.
    if type(norm) in (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, SwitchNorm2d) or (
        isinstance(norm, _BatchNorm) and type(norm).__name__ in ('SyncBatchNorm', '_BatchNormXd')
    ):
        return None
    if type(norm).__name__ in WITH_ACTIVATION + FROZEN:
        return None
    return f'is a {type(norm).__name__}, not a BatchNorm2d or SyncBatchNorm'


def enhanced(norm: Any, k: int, dilation: int) -> EnhancedNorm:
    """Returns BNET, or the layer of its family, in the place of a norm; the norm is used up."""
    plain = without_parts(norm)
    kinds = (
        (nn.SyncBatchNorm, SyncBNET),
        (_BatchNorm, BNET),
        (nn.GroupNorm, GNET),
        (SwitchNorm2d, SNET),
        (nn.InstanceNorm2d, INET),
    )
    layer = next(layer for kind, layer in kinds if isinstance(plain, kind))
    made = layer.from_norm(plain, k, dilation)
    parts = [getattr(norm, name, None) for name in ('drop', 'act')]
    if type(norm).__name__ in WITH_ACTIVATION and {*map(type, parts)} != {nn.Identity}:
        made.drop, made.act = parts
        swap(made, NormAct)
        made.train(norm.training)
    return made


def without_parts(norm: Any) -> nn.Module:
    """Returns the plain norm in a norm with an activation or constants; any other as it is."""
    if type(norm).__name__ in FROZEN:
        return _frozen(norm)
    return _without_activation(norm) if type(norm).__name__ in WITH_ACTIVATION else norm


def _without_activation(norm: Any) -> nn.Module:
    if isinstance(norm, nn.GroupNorm):
        plain: Any = nn.GroupNorm(norm.num_groups, norm.num_channels, norm.eps, device='meta')
    else:
        kind = nn.SyncBatchNorm if isinstance(norm, nn.SyncBatchNorm) else nn.BatchNorm2d
        plain = kind(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        for name, buffer in norm._buffers.items():
            plain._buffers[name] = buffer
    plain.weight, plain.bias = norm.weight, norm.bias
    return plain.train(norm.training)


def _frozen(norm: Any) -> FrozenStatistics:
    plain = FrozenStatistics(norm.running_mean.numel(), norm.eps)
    plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
    # The paper's detectors freeze statistics and train kernels.
    plain.weight, plain.bias = (
        nn.Parameter(torch.as_tensor(t).detach().clone()) for t in (norm.weight, norm.bias)
    )
    return plain.train(False)
