"""What residual network a backbone's tensors belong to."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from bnet_mm.errors import InputError

NORM_TENSORS = ('weight', 'bias', 'running_mean', 'running_var')
DEPTHS = {
    ('basic', (2, 2, 2, 2)): 18,
    ('basic', (3, 4, 6, 3)): 34,
    ('bottleneck', (3, 4, 6, 3)): 50,
    ('bottleneck', (3, 4, 23, 3)): 101,
    ('bottleneck', (3, 8, 36, 3)): 152,
}


@dataclass(frozen=True)
class Architecture:
    """A residual network, as far as its tensors tell.

    Attributes:
        block: 'basic' or 'bottleneck'.
        blocks: how many blocks each stage has.
        stem_channels: channels after the stem.
        base_channels: the first stage's planes; 64 in torchvision's networks.
        groups: of the 3x3 convolutions; 1 unless it is a ResNeXt.
        base_width: channels of a group in the first stage, for a ResNeXt.
        small_input: made for CIFAR: a 3x3 convolution and no pooling in the stem.
        deep_stem: a stem of three convolutions (ResNetV1c, ResNetV1d).
        avg_down: pooling before the convolution of a downsample branch (ResNetV1d).
    """

    block: str
    blocks: tuple[int, ...]
    stem_channels: int
    base_channels: int
    groups: int
    base_width: int
    small_input: bool
    deep_stem: bool
    avg_down: bool

    @property
    def depth(self) -> int | None:
        """50 of a ResNet-50; None where the number of blocks has no name."""
        return DEPTHS.get((self.block, self.blocks))

    def __str__(self) -> str:
        kind = 'ResNeXt' if self.groups > 1 else 'ResNet'
        if self.groups == 1 and self.base_width != self.base_channels:
            kind = 'Wide ResNet'
        if self.deep_stem:
            kind += 'V1d' if self.avg_down else 'V1c'
        name = (
            f'{kind}-{self.depth}' if self.depth else f'{kind} of {self.blocks} {self.block} blocks'
        )
        if self.groups > 1:
            name += f' {self.groups}x{self.base_width}d'
        if self.small_input:
            name += ' for CIFAR'
        return name if self.base_channels == 64 else f'{name}, {self.base_channels} wide'


def block_counts(names: list[str]) -> tuple[int, ...]:
    """Returns how many blocks each stage has, from the common names of a backbone's tensors."""
    last: dict[int, int] = {}
    for name in names:
        found = re.match(r'layer(\d+)\.(\d+)\.', name)
        if found:
            stage, block = int(found[1]), int(found[2])
            last[stage] = max(last.get(stage, 0), block + 1)
    return tuple(last[stage] for stage in sorted(last))


def infer_architecture(state: dict[str, Tensor]) -> Architecture:
    """Returns the network whose backbone `state` is, under the common names.

    Raises:
        InputError: a tensor that every residual network has is missing.
    """
    deep_stem = 'stem.0.weight' in state
    first_conv = state.get('stem.0.weight' if deep_stem else 'conv1.weight')
    stem = state.get('stem.6.weight') if deep_stem else first_conv
    first, middle = state.get('layer1.0.conv1.weight'), state.get('layer1.0.conv2.weight')
    last = state.get('layer1.0.conv3.weight')
    needed = [('stem', stem), ('layer1.0.conv1', first), ('layer1.0.conv2', middle)]
    if last is not None:
        needed.append(('layer1.0.conv3', last))
    for name, value in needed:
        if value is None or value.ndim != 4 or 0 in value.shape:
            raise InputError(
                f'the checkpoint is incomplete: it has no convolution weight of {name}, '
                f'which every residual network has'
            )
    width, groups = first.shape[0], middle.shape[0] // middle.shape[1]
    branch = state.get('layer2.0.downsample.1.weight')
    return Architecture(
        block='basic' if last is None else 'bottleneck',
        blocks=block_counts(list(state)),
        stem_channels=stem.shape[0],
        base_channels=width if last is None else last.shape[0] // 4,
        groups=groups,
        base_width=width // max(groups, 1),
        small_input=first_conv.shape[-1] == 3 and not deep_stem,
        deep_stem=deep_stem,
        avg_down=branch is not None and branch.ndim == 4,
    )


def check_complete(state: dict[str, Tensor]) -> None:
    """Checks that a backbone's `state` has every tensor, and each norm as many values as channels.

    Counters of batches may be absent.

    Raises:
        InputError: something is missing, or does not fit its convolution.
    """
    missing, expected = [], set()
    for conv, site in _convolutions(state):
        bnet = any(
            f'{site}.{name}' in state for name in ('dw.weight', 'dw.bias', 'norm.running_var')
        )
        scale, norm = ('dw.', 'norm.') if bnet else ('', '')
        names = [f'{site}.{norm}running_mean', f'{site}.{norm}running_var']
        names += [f'{site}.{scale}weight', f'{site}.{scale}bias']
        counters = [f'{site}.num_batches_tracked', f'{site}.norm.num_batches_tracked']
        expected.update((f'{conv}.weight', *names, *counters))
        absent = [name for name in (f'{conv}.weight', *names) if name not in state]
        missing += absent
        if absent:
            continue
        plain = [name for name in NORM_TENSORS if bnet and f'{site}.{name}' in state]
        if plain:
            raise InputError(
                f'{site} is a BNET and has {plain[0]} of a plain norm beside it: the checkpoint '
                f'has two norms for one place'
            )
        if state[f'{conv}.weight'].ndim != 4 or 0 in state[f'{conv}.weight'].shape:
            raise InputError(f'{conv}.weight is no convolution: the checkpoint is damaged')
        channels = state[f'{conv}.weight'].shape[0]
        for name in names:
            shape = tuple(state[name].shape)
            kernel = name == f'{site}.dw.weight'
            if (kernel and shape != (channels, 1, *shape[-1:] * 2)) or (
                not kernel and shape != (channels,)
            ):
                wanted = f'({channels}, 1, k, k)' if kernel else f'({channels},)'
                raise InputError(
                    f'{name} has shape {shape}, and after a convolution of {channels} channels it '
                    f'must be {wanted}: the checkpoint is damaged'
                )
            if kernel and shape[-1] % 2 == 0:
                raise InputError(f'{name} has {shape[-1]}x{shape[-1]} kernels, and k is odd')
    if missing:
        shown = ', '.join(missing[:3]) + (', ...' if len(missing) > 3 else '')
        raise InputError(
            f'the checkpoint is incomplete: {len(missing)} tensors are missing of a network that '
            f'has {len(state)} others: {shown}'
        )
    strange = [name for name in state if name not in expected]
    if strange:
        shown = ', '.join(strange[:3]) + (', ...' if len(strange) > 3 else '')
        raise InputError(
            f'{len(strange)} tensors have no place in a residual network of these blocks, and what '
            f'the network computes is not known: {shown}'
        )


def _convolutions(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yields each convolution that the network must have, with the norm after it."""
    arch = infer_architecture(state)
    if arch.deep_stem:
        yield from (('stem.0', 'stem.1'), ('stem.3', 'stem.4'), ('stem.6', 'stem.7'))
    else:
        yield 'conv1', 'bn1'
    for stage, count in enumerate(arch.blocks, 1):
        for block in range(count):
            prefix = f'layer{stage}.{block}'
            for i in range(1, 4 if arch.block == 'bottleneck' else 3):
                yield f'{prefix}.conv{i}', f'{prefix}.bn{i}'
        branch = f'layer{stage}.0.downsample'
        # The first stage of basic blocks changes neither size nor channels; networks for CIFAR pad.
        needed = not arch.small_input and (stage > 1 or arch.block == 'bottleneck')
        if needed or any(name.startswith(f'{branch}.') for name in state):
            conv = 1 if arch.avg_down else 0
            yield f'{branch}.{conv}', f'{branch}.{conv + 1}'
