"""Proves that a converted checkpoint computes, in its new network, what the source computed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnet_mm.checkpoint.architecture import Architecture
from bnet_mm.checkpoint.conversion import Conversion
from bnet_mm.checkpoint.reference import reference_stages
from bnet_mm.errors import InputError

# Of float64 sums over thousands of terms, relative to the stage's largest value.
TOLERANCE = 1e-9
# Odd sizes: every stage then has borders that do not divide evenly.
IMAGES = (2, 3, 97, 131)
# Builds the backbone of a library for an architecture with a norm; filled by the libraries' side.
BUILDERS: dict[str, Callable[[Architecture, dict], nn.Module]] = {}


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
    """
    images = torch.randn(IMAGES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected = reference_stages(source, images)
        outputs = _destination_stages(conversion, images)
    differences = []
    for stage, (ours, theirs) in enumerate(zip(outputs, expected, strict=True), 1):
        if ours.shape != theirs.shape:
            raise InputError(
                f'stage {stage} gives {tuple(ours.shape)} in the new network and '
                f'{tuple(theirs.shape)} in the old one'
            )
        largest, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        relative = largest / scale if scale else largest
        differences.append(StageDifference(stage, tuple(ours.shape), largest, relative))
    return differences


def norm_config(conversion: Conversion) -> dict:
    """Returns the `norm_cfg` of the network that the converted backbone fits.

    Raises:
        InputError: no `norm_cfg` describes it, because kernel sizes differ or some blocks have BNET
            and others not.
    """
    sites = conversion.kernels
    if not sites:
        return dict(type='BN')
    sizes = sorted(set(sites.values()))
    arch = conversion.architecture
    inside = [f'layer{s}.{b}' for s, n in enumerate(arch.blocks, 1) for b in range(n)]
    letters = {'A': 1, 'C': 2} if arch.block == 'basic' else {'A': 1, 'B': 2, 'C': 3}
    placed = {
        letter: {f'{block}.bn{i}' for block in inside} <= sites.keys()
        for letter, i in letters.items()
    }
    positions = ''.join(letter for letter, there in placed.items() if there)
    blocks_only = all('.bn' in site and site.startswith('layer') for site in sites)
    if (
        len(sizes) > 1
        or not positions
        or blocks_only != (len(sites) == len(positions) * len(inside))
    ):
        raise InputError(
            f'no norm_cfg describes where this network has BNET ({len(sites)} norms, k = '
            f'{", ".join(map(str, sizes))}): build it by hand with bnet_mm.enhance'
        )
    config = dict(type='BNET', k=sizes[0])
    if not blocks_only:
        config['positions'] = 'all'
    elif positions != 'C':
        config['positions'] = positions
    return config


def _destination_stages(conversion: Conversion, images: Tensor) -> list[Tensor]:
    arch = conversion.architecture
    own_kind = arch.small_input and conversion.to != 'mmpretrain'
    if conversion.to == 'authors' or arch.depth is None or own_kind:
        return reference_stages(conversion.state, images)
    norm = norm_config(conversion)
    net = (
        _torchvision_network(arch, norm)
        if conversion.to == 'torchvision'
        else _library_network(conversion.to, arch, norm)
    )
    state = {
        name.removeprefix(conversion.prefix): value
        for name, value in conversion.state.items()
        if name.startswith(conversion.prefix)
    }
    if conversion.to == 'torchvision':
        state = {name: value for name, value in state.items() if not name.startswith('fc.')}
    net.double()  # before it is filled: the checkpoint's weights may be float64
    # In place of the counters that old files lack: they do not matter for the outputs.
    own = net.state_dict()
    counters = {name: own[name] for name in own if name.endswith('num_batches_tracked')}
    try:
        net.load_state_dict({**counters, **state})
    except RuntimeError as error:
        raise InputError(f'{conversion.to} does not take the tensors: {error}') from error
    net.eval()
    if conversion.to == 'torchvision':
        return _torchvision_stages(net, images)
    return list(net(images))


def _library_network(library: str, arch: Architecture, norm: dict) -> nn.Module:
    if library not in BUILDERS:
        raise InputError(f'--verify needs {library}, which is not installed')
    return BUILDERS[library](arch, norm)


def _torchvision_network(arch: Architecture, norm: dict) -> nn.Module:
    try:
        from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    except ImportError as error:
        raise InputError('--verify needs torchvision: pip install torchvision') from error

    from bnet_mm.models.placement import enhance

    if arch.base_channels != 64 or arch.stem_channels != 64:
        raise InputError(f'torchvision has no {arch}')
    block = BasicBlock if arch.block == 'basic' else Bottleneck
    net = ResNet(block, arch.blocks, groups=arch.groups, width_per_group=arch.base_width)
    net.fc = nn.Identity()
    if norm['type'] == 'BNET':
        enhance(net, k=norm['k'], positions=norm.get('positions', 'C'))
    return net


def _torchvision_stages(net: nn.Module, images: Tensor) -> list[Tensor]:
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    stages = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        stages.append(x)
    return stages
