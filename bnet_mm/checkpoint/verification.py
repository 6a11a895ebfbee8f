"""Proves that a converted checkpoint computes, in its new network, what the source computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import Tensor, nn

from bnet_mm.checkpoint.architecture import Architecture
from bnet_mm.checkpoint.conversion import Conversion
from bnet_mm.checkpoint.reference import reference_stages
from bnet_mm.errors import InputError
from bnet_mm.models.placement import enhance
from bnet_mm.text import without_prefix

# Of float64 sums over thousands of terms, relative to the stage's largest value.
TOLERANCE = 1e-9
# Odd sizes: every stage then has borders that do not divide evenly.
IMAGES = (2, 3, 97, 131)


@dataclass(frozen=True)
class Placement:
    """The kernels of a network's BNETs, and their positions as `bnet_mm.enhance` takes them."""

    k: int
    positions: str
    dilation: int = 1


@dataclass(frozen=True)
class StageDifference:
    """How far the output of one stage is from the source's, in float64.

    Attributes:
        stage: 1, 2, ...
        shape: of the output.
        largest: the largest difference of two values.
        relative: the same, divided by the source's largest magnitude.
    """

    stage: int
    shape: tuple[int, ...]
    largest: float
    relative: float

    @property
    def equal(self) -> bool:
        """Whether the difference is no more than rounding; never so for NaN."""
        return self.relative <= TOLERANCE


def verify(source: dict[str, Tensor], conversion: Conversion) -> list[StageDifference]:
    """Feeds both networks the same random images and returns the difference at each stage.

    The source's side is `reference_stages`, which reads the checkpoint's own tensors; the
    destination's is the library's network, built as its users build it. Where no library has the
    network (a ResNet-20 for CIFAR), and for 'authors', it is the reference on the new tensors.

    Raises:
        InputError: the destination's network cannot be built, or does not take the tensors.

    Examples:
        >>> from torchvision.models import resnet18
        >>> from bnet_mm.checkpoint import contents_of, convert
        >>> contents = contents_of(resnet18().state_dict())
        >>> stages = verify(contents.state, convert(contents, to='torchvision', k=3))
        >>> all(stage.equal for stage in stages)
        True
    """
    images = torch.randn(IMAGES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected = reference_stages(source, images)
        if conversion.library is None:
            outputs = reference_stages(conversion.state, images)
        else:
            outputs = _library_stages(conversion, conversion.library, images)
    differences = []
    for stage, (ours, theirs) in enumerate(zip(outputs, expected), 1):
        if ours.shape != theirs.shape:
            raise InputError(
                f'stage {stage} gives {tuple(ours.shape)} in the new network and '
                f'{tuple(theirs.shape)} in the old one'
            )
        largest, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        relative = largest / scale if scale else largest
        differences.append(StageDifference(stage, tuple(ours.shape), largest, relative))
    return differences


def placement_of(conversion: Conversion) -> Placement | None:
    """Returns how the network that the converted backbone fits places BNET; None if nowhere.

    Raises:
        InputError: kernel sizes or dilations differ, or some blocks have BNET and others not.
    """
    sites, arch = set(conversion.kernels), conversion.architecture
    if not sites:
        return None
    sizes = sorted(set(conversion.kernels.values()))
    dilations = sorted({conversion.dilations.get(site, 1) for site in sites})
    letters = [letter for letter in arch.letters if sites.issuperset(arch.norms_at(letter))]
    positions = ''.join(letters)
    outside = sites.difference(arch.norms_at(positions))
    if outside and letters == list(arch.letters):
        positions, outside = 'all', set()
    if len(sizes) > 1 or len(dilations) > 1 or not positions or outside:
        raise InputError(
            f'no k, dilation and positions describe where this network has BNET ({len(sites)} '
            f'norms, k = {", ".join(map(str, sizes))}, dilation = '
            f'{", ".join(map(str, dilations))}): build it by hand with bnet_mm.enhance'
        )
    return Placement(sizes[0], positions, dilations[0])


def _library_stages(conversion: Conversion, library: str, images: Tensor) -> list[Tensor]:
    if library not in BUILDERS:
        raise InputError(f'--verify needs {library}, which is not installed')
    net = BUILDERS[library](conversion.architecture, placement_of(conversion))
    net.double()  # before it is filled: the checkpoint's weights may be float64
    # Old files lack the counters of batches, which do not matter for the outputs.
    state = {key: v for key, v in net.state_dict().items() if key.endswith('num_batches_tracked')}
    for key, value in conversion.state.items():
        if key.startswith(conversion.prefix) and not key.startswith('fc.'):
            state[without_prefix(key, conversion.prefix)] = value
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f'{library} does not take the tensors: {error}') from error
    net.eval()  # OpenMMLab's return None
    return list(net(images))


def _build_torchvision(arch: Architecture, placement: Placement | None) -> nn.Module:
    try:
        from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    except ImportError as error:
        raise InputError('--verify needs torchvision: pip install torchvision') from error

    class Stages(ResNet):
        def forward(self, x: Tensor) -> list[Tensor]:
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            stages = []
            for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
                x = stage(x)
                stages.append(x)
            return stages

    if arch.base_channels != 64 or arch.stem_channels != 64:
        raise InputError(f'torchvision has no {arch}')
    block = BasicBlock if arch.block == 'basic' else Bottleneck
    net = Stages(block, arch.blocks, groups=arch.groups, width_per_group=arch.base_width)
    net.fc = nn.Identity()
    return net if placement is None else enhance(net, **vars(placement))


# Builds a library's backbone, with BNET where it is placed; None is plain batch normalization.
Builder = Callable[[Architecture, Optional[Placement]], nn.Module]
# The rooms above add the libraries that they know.
BUILDERS: dict[str, Builder] = {'torchvision': _build_torchvision}
