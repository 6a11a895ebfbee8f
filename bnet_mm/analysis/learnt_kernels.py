"""Statistics of the kernels that a model learnt, and its effective receptive field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnet_mm.analysis.layers import stage_of
from bnet_mm.analysis.pairs import Pair
from bnet_mm.checkpoint.inspection import energy_outside_centre
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.openmmlab.running import (
    backbone_of,
    clip_frames,
    input_channels,
    sized_errors,
    weight_of,
)

# Of random images: a field's size differs by a third between samples of 4, by a tenth of 32.
SAMPLES = 32
# Which share of an effective receptive field's energy its size is that of.
ENERGY = 0.95


@dataclass(frozen=True)
class LearntKernel:
    """The kernels of one BNET.

    Attributes:
        layer: its name.
        stage: name of its stage, or '' outside of any.
        channels, k: of the kernels.
        outside: share of their energy (sum of squares) outside the centre taps; 0 is plain batch
            norm, 1 - 1/k^2 a box filter.
        distance: mean over channels of the Euclidean distance from Dirac, the identity.
        mean: their mean over channels, `k` rows of `k`.
        profile: which share of the kernels' magnitude each tap has, `k` rows of `k`.
    """

    layer: str
    stage: str
    channels: int
    k: int
    outside: float
    distance: float
    mean: list[list[float]]
    profile: list[list[float]]


@dataclass(frozen=True)
class ReceptiveField:
    """How the network's last map, at its centre, depends on the image.

    Attributes:
        field: root mean square of the gradient with respect to each pixel, `(H, W)`, largest 1.
        size: side, in pixels, of a square as large as the smallest area with 95 % of its energy.
    """

    field: Tensor
    size: float


def learnt_kernels(model: nn.Module) -> list[LearntKernel]:
    """Returns what each BNET of a model learnt, in the order of the network."""
    found = []
    for name, module in named_norms(model, EnhancedNorm):
        kernel = module.dw.weight.detach().double().cpu()
        dirac = torch.zeros_like(kernel)
        dirac[:, :, module.k // 2, module.k // 2] = 1
        magnitude = kernel.abs().mean((0, 1))
        found.append(
            LearntKernel(
                layer=name,
                stage=stage_of(name),
                channels=module.num_features,
                k=module.k,
                outside=energy_outside_centre(kernel),
                distance=(kernel - dirac).flatten(1).norm(dim=1).mean().item(),
                mean=kernel.mean((0, 1)).tolist(),
                profile=(magnitude / magnitude.sum().clamp(min=1e-300)).tolist(),
            )
        )
    return found


def enhances(model: nn.Module) -> bool:
    """Tells whether any BNET of a model does more than scale and shift each pixel by itself."""
    return any(kernel.outside for kernel in learnt_kernels(model))


def receptive_field(model: nn.Module, size: int = 224, seed: int = 0) -> ReceptiveField:
    """Returns the effective receptive field of a model's backbone (Luo et al., arXiv 1701.04128).

    The gradient of the last map's centre, with random weights of its channels, with respect to
    random images.

    Args:
        model: in evaluation mode; a model of OpenMMLab with a backbone, or any network that gives
            maps.
        size: height and width of the images.
        seed: of the random numbers.

    Raises:
        InputError: the network gives no map for such images.
    """
    network = backbone_of(model)
    like = weight_of(model)
    generator = torch.Generator().manual_seed(seed)
    energy = torch.zeros(size, size, dtype=torch.float64)
    for _ in range(SAMPLES):
        shape = (clip_frames(network), input_channels(network), size, size)
        x = torch.randn(shape, generator=generator).to(like).requires_grad_()
        with sized_errors(network, x, '--size'):
            output = network(x)
        last = output[-1] if isinstance(output, (tuple, list)) else output
        if not isinstance(last, Tensor) or last.dim() != 4:
            raise InputError(f'{type(network).__name__} gives no map that a field could be of')
        centre = last[:, :, last.shape[2] // 2, last.shape[3] // 2]
        weights = torch.randn(centre.shape, generator=generator).to(centre)
        (gradient,) = torch.autograd.grad((centre * weights).sum(), x)
        energy += gradient.double().square().sum((0, 1)).cpu()
    if not energy.isfinite().all():
        raise InputError(
            f'{type(network).__name__} gives values that are not finite: its weights are of a '
            f'training that diverged'
        )
    if not energy.any():
        raise InputError(
            f"{type(network).__name__}'s last map does not depend on the image: are its last "
            f'norms still at zero?'
        )
    ordered = energy.flatten().sort(descending=True)[0].cumsum(0)
    pixels = int((ordered < ENERGY * ordered[-1]).sum()) + 1
    return ReceptiveField((energy / energy.max()).sqrt(), math.sqrt(pixels))


def by_stage(kernels: Sequence[LearntKernel]) -> dict[str, list[LearntKernel]]:
    """Returns the kernels of each stage, in the order of the network."""
    stages: dict[str, list[LearntKernel]] = {}
    for kernel in kernels:
        stages.setdefault(kernel.stage, []).append(kernel)
    return stages


def analyze_kernels(
    pairs: Sequence[Pair], size: int = 224
) -> tuple[dict[str, list[LearntKernel]], dict[str, ReceptiveField]]:
    """Returns the kernels of each model that has BNET, and the receptive field of each, by name.

    Raises:
        InputError: a model cannot be used, or none has BNET.
    """
    kernels, fields = {}, {}
    for pair in pairs:
        model = pair.load()
        if found := learnt_kernels(model):
            kernels[pair.name] = found
        fields[pair.name] = receptive_field(model, size)
    if not kernels:
        raise InputError(
            f'{", ".join(fields)}: there is no BNET whose kernels could be looked at; take a '
            f"config with norm_cfg=dict(type='BNET', ...)"
        )
    return kernels, fields
