"""What the network of a source checkpoint computes, from its raw tensors and torch alone.

It shares no code with the conversion that it is there to check: it has its own view of the names,
and neither this package's layer nor any library's network.
"""

import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def reference_stages(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """Returns the output of each stage, in evaluation mode and in the type of `images`.

    The network is torchvision's residual network, with strides in the 3x3 convolutions, and where
    the checkpoint has BNET, `depthwise(normalize(x)) + bias` (paper, algorithm 1), as the authors'
    network has it. ResNeXt, the stems of V1c and V1d and networks for CIFAR are told by their
    tensors.

    Args:
        state: the checkpoint's tensors, in any of the known layouts.
        images: `(N, 3, H, W)`.
    """
    net = _Network(state, images)
    x = net.stem(images)
    stages = []
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
        self._state = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        self._names = sorted(self._state)

    def has(self, start: str) -> bool:
        return any(name.startswith(start) for name in self._names)

    def _get(self, *names: str) -> Tensor | None:
        for name in names:
            if name in self._state:
                return self._state[name].to(self._like)
        return None

    def _conv(self, x: Tensor, *places: str, stride: int = 1) -> Tensor:
        weight = self._get(*(f'{place}.weight' for place in places))
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    def _norm(self, x: Tensor, *places: str, kernels: tuple[str, ...] = ()) -> Tensor:
        inner = [f'{place}{norm}' for place in places for norm in ('', '.norm')]
        mean = self._get(*(f'{place}.running_mean' for place in inner))
        var = self._get(*(f'{place}.running_var' for place in inner))
        x = F.batch_norm(x, mean, var, eps=EPS)
        kernels = (*kernels, *(f'{place}.dw' for place in places))
        kernel = self._get(*(f'{place}.weight' for place in kernels))
        if kernel is not None:
            bias = self._get(*(f'{place}.bias' for place in kernels))
            return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=len(kernel))
        scale = self._get(*(f'{place}.weight' for place in places))
        shift = self._get(*(f'{place}.bias' for place in places))
        return x * scale[:, None, None] + shift[:, None, None]

    def stem(self, x: Tensor) -> Tensor:
        for deep, last in (('stem', 'stem.7'), ('conv1', 'bn1')):
            if f'{deep}.0.weight' in self._state:
                places = (
                    (f'{deep}.0', f'{deep}.1'),
                    (f'{deep}.3', f'{deep}.4'),
                    (f'{deep}.6', last),
                )
            elif f'{deep}.0.conv.weight' in self._state:
                places = tuple((f'{deep}.{i}.conv', f'{deep}.{i}.bn') for i in range(3))
            else:
                continue
            for i, (conv, norm) in enumerate(places):
                x = F.relu(self._norm(self._conv(x, conv, stride=1 if i else 2), norm))
            return F.max_pool2d(x, 3, stride=2, padding=1)
        small = self._get('conv1.weight', 'conv1.conv.weight').shape[-1] == 3
        x = self._conv(x, 'conv1', 'conv1.conv', stride=1 if small else 2)
        x = F.relu(self._norm(x, 'bn1', 'conv1.bn'))
        return x if small else F.max_pool2d(x, 3, stride=2, padding=1)

    def block(self, x: Tensor, name: str, stride: int) -> Tensor:
        shortcut = self._shortcut(x, f'{name}.downsample', stride)
        last = 3 if self.has(f'{name}.conv3.') else 2
        for i in range(1, last + 1):
            here = stride if i == last - 1 else 1
            conv = f'{name}.conv{i}'
            x = self._conv(x, conv, f'{conv}.conv', f'{conv}.conv.net', stride=here)
            x = self._norm(
                x,
                f'{name}.bnet{i}',
                f'{name}.bn{i}',
                f'{conv}.bn',
                kernels=(f'{name}.bnet{i}.bnconv', f'{name}.bnconv{i}'),
            )
            if i < last:
                x = F.relu(x)
        if shortcut.shape[1] < x.shape[1]:
            # Networks for CIFAR take every second pixel and pad the channels with zeros.
            shortcut = F.pad(
                shortcut[:, :, ::stride, ::stride],
                (0, 0, 0, 0, *[(x.shape[1] - shortcut.shape[1]) // 2] * 2),
            )
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
