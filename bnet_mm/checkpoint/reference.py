"""What the network of a source checkpoint computes, from its raw tensors and torch alone.

It shares no code with the conversion that it checks: it has its own view of the names, and uses
neither this package's layer nor any library's network.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bnet_mm.errors import InputError

EPS = 1e-5


def reference_stages(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """Returns the output of each stage, in evaluation mode and in the type of `images`.

    The network is torchvision's residual network, with strides in the 3x3 convolutions, and where
    the checkpoint has BNET, `depthwise(normalize(x)) + bias` (paper, algorithm 1), as the authors'
    network has it. ResNeXt, the stems of V1c and V1d and networks for CIFAR are recognized by
    their tensors.

    Args:
        state: the checkpoint's tensors, in any of the known layouts.
        images: `(N, 3, H, W)`.
    """
    net = _Network(state, images)
    x = net.stem(images)
    stages: list[Tensor] = []
    while net.has(f'layer{len(stages) + 1}.0.conv1.'):
        stage, block = len(stages) + 1, 0
        while net.has(f'layer{stage}.{block}.conv1.'):
            x = net.block(x, f'layer{stage}.{block}', stride=2 if stage > 1 and block == 0 else 1)
            block += 1
        stages.append(x)
    return stages


class _Network:
    def __init__(self, state: dict[str, Tensor], like: Tensor):
        self._like = like
        first = 'layer1.0.conv1.'
        prefix = next((key[: key.index(first)] for key in state if first in key), '')
        self._state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

    def has(self, start: str) -> bool:
        return any(name.startswith(start) for name in self._state)

    def _find(self, names: list[str]) -> Tensor | None:
        return next(
            (self._state[name].to(self._like) for name in names if name in self._state), None
        )

    def _get(self, places: tuple[str, ...], tensor: str) -> Tensor:
        value = self._find([f'{place}.{tensor}' for place in places])
        if value is None:
            raise InputError(f'the checkpoint has no {tensor} of {places[0]}')
        return value

    def _conv(self, x: Tensor, *places: str, stride: int = 1) -> Tensor:
        weight = self._get(places, 'weight')
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    def _norm(self, x: Tensor, *places: str, kernels: tuple[str, ...] = ()) -> Tensor:
        inner = (*places, *(f'{place}.norm' for place in places))
        x = F.batch_norm(
            x, self._get(inner, 'running_mean'), self._get(inner, 'running_var'), eps=EPS
        )
        kernels = (*kernels, *(f'{place}.dw' for place in places))
        kernel = self._find([f'{place}.weight' for place in kernels])
        if kernel is not None:
            bias = self._get(kernels, 'bias')
            said = self._find([f'{place}.dilation' for place in kernels])
            dilation = 1 if said is None else int(said)
            padding = dilation * (kernel.shape[-1] // 2)
            return F.conv2d(x, kernel, bias, 1, padding, dilation, len(kernel))
        scale, shift = self._get(places, 'weight'), self._get(places, 'bias')
        return x * scale[:, None, None] + shift[:, None, None]

    def stem(self, x: Tensor) -> Tensor:
        for deep in (
            [('stem.0', 'stem.1'), ('stem.3', 'stem.4'), ('stem.6', 'stem.7')],
            [('conv1.0', 'conv1.1'), ('conv1.3', 'conv1.4'), ('conv1.6', 'bn1')],
            [(f'stem.{i}.conv', f'stem.{i}.bn') for i in range(3)],
        ):
            if f'{deep[0][0]}.weight' in self._state:
                for i, (conv, norm) in enumerate(deep):
                    x = F.relu(self._norm(self._conv(x, conv, stride=1 if i else 2), norm))
                return F.max_pool2d(x, 3, stride=2, padding=1)
        small = self._get(('conv1', 'conv1.conv'), 'weight').shape[-1] == 3
        x = self._conv(x, 'conv1', 'conv1.conv', stride=1 if small else 2)
        x = F.relu(self._norm(x, 'bn1', 'conv1.bn'))
        return x if small else F.max_pool2d(x, 3, stride=2, padding=1)

    def block(self, x: Tensor, name: str, stride: int) -> Tensor:
        shortcut = self._shortcut(x, f'{name}.downsample', stride)
        last = 3 if self.has(f'{name}.conv3.') else 2
        for i in range(1, last + 1):
            here = stride if i == last - 1 else 1
            conv, bnet = f'{name}.conv{i}', f'{name}.bnet{i}'
            kernels = (f'{bnet}.bnconv', f'{name}.bnconv{i}')
            x = self._conv(x, conv, f'{conv}.conv', f'{conv}.conv.net', stride=here)
            x = self._norm(x, bnet, f'{name}.bn{i}', f'{conv}.bn', kernels=kernels)
            if i < last:
                x = F.relu(x)
        if shortcut.shape[1] < x.shape[1]:
            # Networks for CIFAR take every second pixel and pad the channels with zeros.
            beside = (x.shape[1] - shortcut.shape[1]) // 2
            shortcut = F.pad(shortcut[:, :, ::stride, ::stride], (0, 0, 0, 0, beside, beside))
        return F.relu(x + shortcut)

    def _shortcut(self, x: Tensor, name: str, stride: int) -> Tensor:
        if not self.has(f'{name}.'):
            return x
        after_pooling = self._state.get(f'{name}.1.weight')
        if after_pooling is not None and after_pooling.ndim == 4:
            x = F.avg_pool2d(x, stride, stride, ceil_mode=True, count_include_pad=False)
            return self._norm(self._conv(x, f'{name}.1'), f'{name}.2')
        x = self._conv(x, f'{name}.0', f'{name}.conv', stride=stride)
        return self._norm(x, f'{name}.1', f'{name}.bn')
