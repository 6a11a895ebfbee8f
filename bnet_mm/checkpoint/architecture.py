"""The residual network of a backbone's tensors: which one it is, and whether it is complete.

Every `state` here is a backbone's, under the common names (see `bnet_mm.checkpoint.layouts`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from bnet_mm.errors import InputError
from bnet_mm.models.blocks import BASIC_BLOCK, BOTTLENECK, LETTERS
from bnet_mm.text import without_prefix

DEPTHS: dict[tuple[str, tuple[int, ...]], int] = {
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

    @property
    def is_wide(self) -> bool:
        """Whether it is a Wide ResNet, which no OpenMMLab library has."""
        return self.groups == 1 and self.base_width != self.base_channels

    @property
    def letters(self) -> dict[str, int]:
        """The positions of a block's norms (paper, table 10), and the number of each: `bn3`."""
        return LETTERS[BASIC_BLOCK if self.block == 'basic' else BOTTLENECK]

    def norms_at(self, positions: str) -> list[str]:
        """Returns the common names of the norms at some positions, 'C' or 'AC', of every block."""
        return [
            f'layer{stage}.{block}.bn{self.letters[letter]}'
            for stage, count in enumerate(self.blocks, 1)
            for block in range(count)
            for letter in positions
        ]

    def __str__(self) -> str:
        kind = 'ResNeXt' if self.groups > 1 else 'Wide ResNet' if self.is_wide else 'ResNet'
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


def infer_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Returns the network whose backbone `state` is.

    Raises:
        InputError: a tensor that every residual network has is missing.
    """
    block, blocks, _ = _outline(state)
    deep_stem = 'stem.0.weight' in state

    def conv(place: str, name: str) -> Tensor:
        value = state.get(f'{name}.weight')
        if value is None or value.ndim != 4 or 0 in value.shape:
            raise InputError(
                f'the checkpoint is incomplete: it has no convolution weight of {place}, '
                f'which every residual network has'
            )
        return value

    stem = conv('stem', 'stem.6' if deep_stem else 'conv1')
    first, middle = (conv(name, name) for name in ('layer1.0.conv1', 'layer1.0.conv2'))
    width, groups = first.shape[0], middle.shape[0] // middle.shape[1]
    last = conv('layer1.0.conv3', 'layer1.0.conv3') if block == 'bottleneck' else None
    branch = state.get('layer2.0.downsample.1.weight')
    return Architecture(
        block=block,
        blocks=blocks,
        stem_channels=stem.shape[0],
        base_channels=width if last is None else last.shape[0] // 4,
        groups=groups,
        base_width=width // max(groups, 1),
        small_input=stem.shape[-1] == 3 and not deep_stem,
        deep_stem=deep_stem,
        avg_down=branch is not None and branch.ndim == 4,
    )


def check_complete(state: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Checks that a backbone has every tensor, and each norm as many values as channels.

    Counters of batches and dilations may be absent.

    Raises:
        InputError: something is missing, has no place, or does not fit its convolution.
    """
    missing: list[str] = []
    expected: set[str] = set()
    for conv, site in _convolutions(state, architecture):
        names = [f'{conv}.weight', *_norm_tensors(state, site)]
        optional = ('num_batches_tracked', 'norm.num_batches_tracked', 'dw.dilation')
        expected |= {*names, *(f'{site}.{name}' for name in optional)}
        absent = [name for name in names if name not in state]
        missing += absent
        if not absent:
            _check_shapes(state, names)
    if missing:
        raise InputError(
            f'the checkpoint is incomplete: {len(missing)} tensors are missing of a network that '
            f'has {len(state)} others: {some(missing)}'
        )
    strange = [name for name in state if name not in expected]
    if strange:
        raise InputError(
            f'{len(strange)} tensors have no place in a residual network of these blocks, and what '
            f'the network computes is not known: {some(strange)}'
        )


def check_same(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Checks that a checkpoint's backbone is the model's, but for the size of BNET's kernels.

    Tensors that it lacks are left to whoever loads it.

    Args:
        state: the checkpoint's tensors.
        own: the model's.

    Raises:
        InputError: the networks differ, in which case nothing of the checkpoint may be loaded.
    """
    (block, blocks, stem), (own_block, own_blocks, own_stem) = _outline(state), _outline(own)
    if block != own_block:
        raise InputError(
            f'checkpoint has {block} blocks, the model {own_block} blocks, at layer1.0'
        )
    # A network may have fewer stages: detectors on C4 leave the last one out.
    if blocks[: len(own_blocks)] != own_blocks:
        raise InputError(
            f'checkpoint has {blocks} blocks in its stages, the model {own_blocks}: they differ in '
            f'depth'
        )
    if stem != own_stem:
        raise InputError(f'checkpoint has a stem of {stem}, the model of {own_stem}')
    places = {_plain(name): name for name in own}
    for name, value in state.items():
        place = places.pop(_plain(name), None)
        if place is None:
            continue
        site, _, leaf = name.rpartition('.dw.')
        if leaf == 'weight' and value.ndim == 4 and '.dw.' not in place:
            k = value.shape[-1]
            raise InputError(
                f'checkpoint has {k}x{k} kernels, the model plain batch normalization, at {site}: '
                f"build the model with type='BNET', k={k} there"
            )
        shape, own_shape = _shape(name, value), _shape(place, own[place])
        alike = shape[2:] == own_shape[2:]
        # Another number of input channels is the user's choice, and the loader says so.
        first = name in ('conv1.weight', 'stem.0.weight') and shape[:1] == own_shape[:1]
        if shape != own_shape and not (first and alike):
            raise InputError(
                f'checkpoint has {name} of shape {tuple(value.shape)}, the model of '
                f'{tuple(own[place].shape)}: they differ in {"width" if alike else "their layers"}'
            )


def some(names: list[str]) -> str:
    """Returns the first of many names, and how many more there are."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def _outline(names: Iterable[str]) -> tuple[str, tuple[int, ...], str]:
    """Returns kind of block, number of blocks in each stage, and what the stem consists of."""
    names = set(names)
    places = {found[0] for name in names if (found := re.match(r'layer\d+\.\d+(?=\.)', name))}
    blocks = Counter(int(without_prefix(place.partition('.')[0], 'layer')) for place in places)
    return (
        'bottleneck' if any('.0.conv3.' in name for name in names) else 'basic',
        tuple(blocks[stage] for stage in sorted(blocks)),
        'three convolutions' if 'stem.0.weight' in names else 'one convolution',
    )


def _convolutions(
    state: Mapping[str, Tensor], architecture: Architecture
) -> Iterator[tuple[str, str]]:
    """Yields each convolution that the network must have, with the norm after it."""
    if architecture.deep_stem:
        yield from (('stem.0', 'stem.1'), ('stem.3', 'stem.4'), ('stem.6', 'stem.7'))
    else:
        yield 'conv1', 'bn1'
    bottleneck = architecture.block == 'bottleneck'
    for stage, count in enumerate(architecture.blocks, 1):
        for block in range(count):
            for i in range(1, 4 if bottleneck else 3):
                yield f'layer{stage}.{block}.conv{i}', f'layer{stage}.{block}.bn{i}'
        branch = f'layer{stage}.0.downsample'
        # The first stage of basic blocks changes neither size nor channels; networks for CIFAR pad.
        needed = not architecture.small_input and (stage > 1 or bottleneck)
        if needed or any(name.startswith(f'{branch}.') for name in state):
            conv = 1 if architecture.avg_down else 0
            yield f'{branch}.{conv}', f'{branch}.{conv + 1}'


def _norm_tensors(state: Mapping[str, Tensor], site: str) -> list[str]:
    """Returns the names that the norm at `site` must have, a BNET's or a plain one's."""
    bnet = any(f'{site}.{name}' in state for name in ('dw.weight', 'dw.bias', 'norm.running_var'))
    plain = [f'{site}.{name}' for name in ('running_mean', 'running_var', 'weight', 'bias')]
    if not bnet:
        return plain
    for name in plain:
        if name in state:
            raise InputError(
                f'{site} is a BNET and has {name.rpartition(".")[2]} of a plain norm beside it: '
                f'the checkpoint has two norms for one place'
            )
    names = ('norm.running_mean', 'norm.running_var', 'dw.weight', 'dw.bias')
    return [f'{site}.{name}' for name in names]


def _check_shapes(state: Mapping[str, Tensor], names: list[str]) -> None:
    """Checks the shapes of a convolution's weight and of the norm after it, which `names` are."""
    weight = state[names[0]]
    if weight.ndim != 4 or 0 in weight.shape:
        raise InputError(f'{names[0]} is not a convolution: the checkpoint is damaged')
    channels = weight.shape[0]
    for name in names[1:]:
        shape, kernel = tuple(state[name].shape), name.endswith('.dw.weight')
        if shape != ((channels, 1, *shape[-1:] * 2) if kernel else (channels,)):
            wanted = f'({channels}, 1, k, k)' if kernel else f'({channels},)'
            raise InputError(
                f'{name} has shape {shape}, and after a convolution of {channels} channels it must '
                f'be {wanted}: the checkpoint is damaged'
            )
        if kernel and shape[-1] % 2 == 0:
            raise InputError(f'{name} has {shape[-1]}x{shape[-1]} kernels, and k is odd')


def _plain(name: str) -> str:
    """Returns the name that a plain norm in the place of a BNET has for the same tensor."""
    return name.replace('.dw.', '.').replace('.norm.', '.')


def _shape(name: str, value: Tensor) -> tuple[int, ...]:
    """Returns the shape that counts: a norm has as many values as channels, in either form."""
    return tuple(value.shape[:1] if name.endswith('.dw.weight') else value.shape)
