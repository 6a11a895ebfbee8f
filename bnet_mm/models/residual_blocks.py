"""Residual blocks with a known forward, whose end (norm, addition, ReLU) becomes one pass.

Those of torchvision, timm and the OpenMMLab libraries. A block that overrides the forward
(attention, splits, multiple scales) is not among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn

from bnet_mm.kernels.versions import is_compiling
from bnet_mm.layers import EnhancedNorm
from bnet_mm.layers.enhanced import has_global_hooks, has_hooks
from bnet_mm.models.blocks import block_kind, norm_after_conv, positions_of
from bnet_mm.models.swapping import Swapped, own_class, swap, swap_back

# Modules whose BasicBlock and Bottleneck run: convolution, norm, ReLU, ..., convolution, norm, plus
# identity, ReLU.
KNOWN = {
    'torchvision.models.resnet',
    'timm.models.resnet',
    'mmdet.models.backbones.resnet',
    'mmseg.models.backbones.resnet',
    'mmpretrain.models.backbones.resnet',
    'mmaction.models.backbones.resnet',
}
# What some of these libraries may put in between, which must be absent.
ADDITIONS = ('se', 'drop_path', 'drop_block', 'aa')


@dataclass(frozen=True)
class Parts:
    """Names, with dots, of a block's modules.

    Attributes:
        body: those up to the last convolution, in order.
        norm: the last norm.
        activation: what follows the addition, a ReLU.
    """

    body: tuple[str, ...]
    norm: str
    activation: str


def parts_of(block: nn.Module) -> Parts | str:
    """Returns what runs in a residual block, or why that is not known."""
    if not is_known(block):
        return f'{type(block).__name__} has a forward of its own'
    if getattr(block, 'with_plugins', False):
        return 'it has plugins'
    for name in ADDITIONS:
        if type(getattr(block, name, None)) not in (type(None), nn.Identity):
            return f'it has {name}'
    body, norm, activation = [], '', ''
    last = max(positions_of(block).values())
    for index in range(1, last + 1):
        norm, _ = norm_after_conv(block, index)
        inside = norm.startswith('conv')  # mmaction2's ConvModule, which holds all three
        activation = f'act{index}' if hasattr(block, f'act{index}') else 'relu'
        if index < last:
            body += [f'conv{index}'] if inside else [f'conv{index}', norm, activation]
        elif inside and (problem := _more_than_conv(block.get_submodule(f'conv{index}'))):
            return problem
        elif type(getattr(block, activation, None)) is not nn.ReLU:
            return 'it does not end in a ReLU'
        else:
            body.append(f'conv{index}.conv' if inside else f'conv{index}')
    return Parts(tuple(body), norm, activation)


class JoinedEnd(Swapped):
    """A residual block that ends in BNET, with its end in one pass.

    It looks at its parts at each call. The block's own forward runs wherever the two could differ:
    in checkpointed blocks, compiled and traced ones, with hooks on a part that is passed over, or
    with something else put in its place.
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = self._joinable(x)
        if parts is None:
            return super().forward(x)  # type: ignore[misc]
        output = x
        for name in parts.body:
            output = attrgetter(name)(self)(output)
        downsample = getattr(self, 'downsample', None)
        residual = x if downsample is None else downsample(x)
        return attrgetter(parts.norm)(self).end_of_block(output, residual)

    def _joinable(self, x: Tensor) -> Parts | None:
        if (
            is_compiling()
            or torch.jit.is_tracing()
            or not isinstance(x, Tensor)  # torch.fx
            or (getattr(self, 'with_cp', False) and x.requires_grad)
            or has_global_hooks()
        ):
            return None
        parts = parts_of(cast(nn.Module, self))
        if isinstance(parts, str) or not isinstance(attrgetter(parts.norm)(self), EnhancedNorm):
            return None
        activation = attrgetter(parts.activation)(self)
        passed_over = [activation]
        if '.' in parts.norm:
            passed_over.append(attrgetter(parts.norm.rpartition('.')[0])(self))
        if any(has_hooks(m) or 'forward' in vars(m) for m in passed_over):
            return None
        return parts


def join_ends(model: nn.Module) -> nn.Module:
    """Computes the end of each residual block of `model` that has BNET there in one pass, in place.

    Norm, addition and ReLU then read and write the feature map once. Outputs, gradients,
    statistics and the names of a state dict stay what they were. It may be called again, after
    norms were replaced, say; `split_ends` undoes it.

    Args:
        model: whose blocks are those of a ResNet of torchvision, timm or an OpenMMLab library;
            others are left alone.

    Returns:
        `model`.

    Examples:
        >>> import bnet_mm, torchvision
        >>> model = bnet_mm.enhance(torchvision.models.resnet18(), k=3)
        >>> sum(isinstance(block, JoinedEnd) for block in join_ends(model).modules())
        8
    """
    for block in model.modules():
        parts = parts_of(block) if is_known(block) and 'forward' not in vars(block) else ''
        if isinstance(parts, Parts) and isinstance(attrgetter(parts.norm)(block), EnhancedNorm):
            swap(block, JoinedEnd)
    return model


def split_ends(model: nn.Module) -> nn.Module:
    """Gives blocks joined by `join_ends` their library's forward back, in place."""
    for block in model.modules():
        if isinstance(block, JoinedEnd):
            swap_back(block)
    return model


def is_known(module: nn.Module) -> bool:
    """Tells whether a module is a residual block whose forward is one of those known here."""
    kind, forward = block_kind(module), own_class(module).forward
    return (
        kind is not None
        and getattr(forward, '__module__', None) in KNOWN
        and getattr(forward, '__qualname__', None) == f'{kind}.forward'
    )


def _more_than_conv(module: Any) -> str | None:
    if module.with_explicit_padding or module.with_activation or module.order[0] != 'conv':
        return 'its last ConvModule does more than a convolution and a norm'
    if has_hooks(module):
        return 'its last ConvModule has hooks'
    return None
