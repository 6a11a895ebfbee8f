"""Residual networks of any width, with the blocks and the names of torchvision's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

BLOCKS = {'basic': BasicBlock, 'bottleneck': Bottleneck}


class ResNet(nn.Module):
    """torchvision's ResNet, of other widths, numbers of stages, and stems.

    Args:
        block: 'basic' or 'bottleneck'.
        blocks: blocks of each stage; each stage but the first halves the size.
        channels: of the stem and of the first stage, which each later stage doubles; bottlenecks
            give four times as many.
        stem: 'imagenet' (7x7 of stride 2 and max pooling) or 'cifar' (3x3).
        classes: of the classifier.
        width: multiplies all channels.

    Shape:
        input `(N, 3, H, W)`, output `(N, classes)`.

    Example:
        >>> net = ResNet('basic', (3, 3, 3), channels=16, stem='cifar', classes=10)  # ResNet-20
        >>> sum(p.numel() for p in net.parameters())
        272474
    """

    def __init__(
        self,
        block: str,
        blocks: Sequence[int],
        channels: int,
        stem: str = 'imagenet',
        classes: int = 10,
        width: float = 1.0,
    ):
        super().__init__()
        channels = round(channels * width)
        large = stem == 'imagenet'
        size, stride, padding = (7, 2, 3) if large else (3, 1, 1)
        self.conv1 = nn.Conv2d(3, channels, size, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.stages = len(blocks)
        before = channels
        for i, number in enumerate(blocks):
            planes, stride = channels * 2**i, 1 if i == 0 else 2
            stage = _stage(BLOCKS[block], before, planes, number, stride)
            self.add_module(f'layer{i + 1}', stage)
            before = planes * BLOCKS[block].expansion
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def stage_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the map `(N, C, h, w)` that each stage ends with."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for i in range(self.stages):
            x = self.get_submodule(f'layer{i + 1}')(x)
            maps.append(x)
        return tuple(maps)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stage_maps(x)[-1].mean((2, 3)))


def _stage(block: Any, before: int, planes: int, number: int, stride: int) -> nn.Sequential:
    layers = []
    for _ in range(number):
        after = planes * block.expansion
        downsample = None
        if (stride, before) != (1, after):
            downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        layers.append(block(before, planes, stride, downsample))
        before, stride = after, 1
    return nn.Sequential(*layers)


def build_net(config: dict[str, Any], classes: int, seed: int) -> ResNet:
    """Builds the network of a run with batch norm everywhere, its random values by the seed alone.

    Args:
        config: of a `Run`.
        classes: of the data.
        seed: of the run.
    """
    torch.manual_seed(seed)
    net, arm = config['net'], config['arm']
    more = arm.get('more_blocks', [0] * len(net['blocks']))
    blocks = [number + further for number, further in zip(net['blocks'], more)]
    return ResNet(**{**net, 'blocks': blocks}, classes=classes, width=arm['width'])
