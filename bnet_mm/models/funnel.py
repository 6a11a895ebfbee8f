"""Funnel activations in the place of a ResNet's ReLUs (paper, section 3.3)."""

from __future__ import annotations

from operator import attrgetter

import torch.utils.checkpoint as checkpoint
from torch import Tensor, nn

from bnet_mm.errors import InputError
from bnet_mm.layers.frelu import FReLU
from bnet_mm.models.blocks import block_kind
from bnet_mm.models.residual_blocks import Parts, parts_of, split_ends
from bnet_mm.models.swapping import Swapped, swap


class FunnelForward(Swapped):
    """A residual block with an FReLU of its own for each of its activations.

    The libraries' blocks have one ReLU, which they call in two or three places of different widths.

    Attributes:
        funnels: the block's parts (`bnet_mm.models.residual_blocks.parts_of`), FReLUs among them.
    """

    funnels: Parts

    def forward(self, x: Tensor) -> Tensor:
        if getattr(self, 'with_cp', False) and x.requires_grad:
            return self._end(checkpoint.checkpoint(self._body, x, use_reentrant=False))
        return self._end(self._body(x))

    def _body(self, x: Tensor) -> Tensor:
        output = x
        for name in (*self.funnels.body, self.funnels.norm):
            output = attrgetter(name)(self)(output)
        downsample = getattr(self, 'downsample', None)
        return output + (x if downsample is None else downsample(x))

    def _end(self, output: Tensor) -> Tensor:
        return getattr(self, self.funnels.activation)(output)


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
        if '.' in parts.norm or parts.activation != 'relu' or 'forward' in vars(block):
            raise InputError(f'FReLU cannot be placed in {name}: its activations are elsewhere')
        found[block] = parts
    stem, relu = model._modules.get('conv1'), model._modules.get('relu')
    if not found or not isinstance(stem, nn.Conv2d) or not isinstance(relu, nn.ReLU):
        raise InputError(
            f'FReLU cannot be placed in {type(model).__name__}: it is not a ResNet with a '
            f'stem of one convolution'
        )
    split_ends(model)
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
        block.funnels = Parts(tuple(body), parts.norm, last)
        swap(block, FunnelForward)
    return model


def _where(conv: nn.Conv2d) -> dict:
    return dict(device=conv.weight.device, dtype=conv.weight.dtype)
