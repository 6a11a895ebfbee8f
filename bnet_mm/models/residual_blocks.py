"""Residual blocks with a known forward, whose end (norm, addition, ReLU) becomes one pass.

Those of torchvision, timm and the OpenMMLab libraries. A block that overrides the forward
(attention, splits, multiple scales) is not among them.
"""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from bnet_mm.layers import EnhancedNorm
from bnet_mm.models.blocks import block_kind, norm_after_conv, positions_of

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


class JoinedEnd:
    """The forward of one residual block that ends in BNET, with its end in one pass.

    It stands in the block's `forward`, and the block's class keeps its own. That one runs wherever
    the two could differ: in checkpointed blocks, compiled and traced ones, with hooks on a part
    that is passed over, or with another norm at the end.

    Args:
        block: whose `parts` are known.
        parts: see `parts_of`.
    """

    def __init__(self, block: nn.Module, parts: Parts):
        self.block, self.parts = block, parts

    def __call__(self, x: Tensor) -> Tensor:
        block, parts = self.block, self.parts
        norm = attrgetter(parts.norm)(block)
        passed_over = [attrgetter(parts.activation)(block)]
        if '.' in parts.norm:
            passed_over.append(block._modules[parts.norm.partition('.')[0]])
        if (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or not isinstance(norm, EnhancedNorm)
            or (getattr(block, 'with_cp', False) and x.requires_grad)
            or any(m._forward_hooks or m._forward_pre_hooks for m in passed_over)
        ):
            return type(block).forward(block, x)
        output = x
        for name in parts.body:
            output = attrgetter(name)(block)(output)
        downsample = block._modules.get('downsample')
        return norm.end_of_block(output, x if downsample is None else downsample(x))


def join_ends(model: nn.Module) -> None:
    """Gives each residual block of `model` that ends in BNET a forward with its end in one pass."""
    for block in model.modules():
        if not is_known(block) or 'forward' in vars(block):
            continue
        parts = parts_of(block)
        if isinstance(parts, Parts) and isinstance(attrgetter(parts.norm)(block), EnhancedNorm):
            block.forward = JoinedEnd(block, parts)


def is_known(module: nn.Module) -> bool:
    """Tells whether a module is a residual block whose forward is one of those known here."""
    kind, forward = block_kind(module), type(module).forward
    return (
        kind is not None
        and getattr(forward, '__module__', None) in KNOWN
        and getattr(forward, '__qualname__', None) == f'{kind}.forward'
    )


def _more_than_conv(module: Any) -> str | None:
    if module.with_explicit_padding or module.with_activation or module.order[0] != 'conv':
        return 'its last ConvModule does more than a convolution and a norm'
    if module._forward_hooks or module._forward_pre_hooks:
        return 'its last ConvModule has hooks'
    return None
