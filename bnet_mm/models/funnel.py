"""Funnel activations in the place of a ResNet's ReLUs (paper, section 3.3)."""

from operator import attrgetter

import torch.utils.checkpoint as checkpoint
from torch import Tensor, nn

from bnet_mm.errors import InputError
from bnet_mm.layers.frelu import FReLU
from bnet_mm.models.blocks import block_kind
from bnet_mm.models.residual_blocks import JoinedEnd, Parts, parts_of


class FunnelForward:
    """The forward of a residual block with an FReLU of its own for each of its activations.

    The libraries' blocks have one ReLU, which they call in two or three places of different widths.
    It stands in the block's `forward`, and the block's class stays the library's.

    Args:
        block: whose `parts` are known, with FReLUs in the place of its activations.
        parts: see `bnet_mm.models.residual_blocks.parts_of`.
    """

    def __init__(self, block: nn.Module, parts: Parts):
        self.block, self.parts = block, parts

    def __call__(self, x: Tensor) -> Tensor:
        block = self.block
        if getattr(block, 'with_cp', False) and x.requires_grad:
            return self._end(checkpoint.checkpoint(self._body, x, use_reentrant=False))
        return self._end(self._body(x))

    def _body(self, x: Tensor) -> Tensor:
        block = self.block
        output = x
        for name in (*self.parts.body, self.parts.norm):
            output = attrgetter(name)(block)(output)
        downsample = block._modules.get('downsample')
        return output + (x if downsample is None else downsample(x))

    def _end(self, output: Tensor) -> Tensor:
        return getattr(self.block, self.parts.activation)(output)


def replace_relus(model: nn.Module) -> nn.Module:
    """Puts an FReLU in the place of every ReLU of a ResNet, in its blocks and its stem, in place.

    Args:
        model: of torchvision, MMDetection, MMSegmentation or MMPretrain, with a stem of one
            convolution.

    Returns:
        `model`.

    Raises:
        InputError: it has other blocks or another stem; nothing was changed.
    """
    found = {}
    for name, block in model.named_modules():
        if block_kind(block) is None:
            continue
        parts = parts_of(block)
        if isinstance(parts, str):
            raise InputError(f'FReLU cannot be placed in {name}: {parts}')
        if (
            '.' in parts.norm
            or parts.activation != 'relu'
            or not isinstance(vars(block).get('forward'), JoinedEnd | None)
        ):
            raise InputError(f'FReLU cannot be placed in {name}: its activations are elsewhere')
        found[block] = parts
    stem, relu = model._modules.get('conv1'), model._modules.get('relu')
    if not found or not isinstance(stem, nn.Conv2d) or not isinstance(relu, nn.ReLU):
        raise InputError(
            f'FReLU cannot be placed in {type(model).__name__}: it is not a ResNet with a '
            f'stem of one convolution'
        )
    model.relu = FReLU(stem.out_channels, **_where(stem))
    for block, parts in found.items():
        del block.relu
        body, width, count = [], 0, 0
        for part in parts.body:
            if part == 'relu':
                count += 1
                block.add_module(f'frelu{count}', FReLU(width, **_where(block.conv1)))
                part = f'frelu{count}'
            elif part.startswith('conv'):
                width = block._modules[part].out_channels
            body.append(part)
        last = f'frelu{count + 1}'
        block.add_module(last, FReLU(width, **_where(block.conv1)))
        block.forward = FunnelForward(block, Parts(tuple(body), parts.norm, last))
    return model


def _where(conv: nn.Conv2d) -> dict:
    return dict(device=conv.weight.device, dtype=conv.weight.dtype)
