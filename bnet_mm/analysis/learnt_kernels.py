"""What the taps of a trained BNET learnt, and how far the network with them sees."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor, nn

from bnet_mm.analysis.heatmap import STAGE
from bnet_mm.checkpoint.kernels import energy_outside_centre
from bnet_mm.deploy.sample import weight_of
from bnet_mm.errors import InputError
from bnet_mm.norm import EnhancedNorm
from bnet_mm.whole_file import write_whole

SAMPLES = 4
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
        profile: which share of the kernels' magnitude each tap has, `k` rows of `k`.
    """

    layer: str
    stage: str
    channels: int
    k: int
    outside: float
    distance: float
    profile: list[list[float]]


@dataclass(frozen=True)
class ReceptiveField:
    """How the network's last map, at its centre, depends on the picture.

    Attributes:
        field: root mean square of the gradient with respect to each pixel, `(H, W)`, largest 1.
        size: side, in pixels, of a square as large as the smallest area with 95 % of its energy.
    """

    field: Tensor
    size: float


def learnt_kernels(model: nn.Module) -> list[LearntKernel]:
    """Returns what each BNET of a model learnt, in the order of the network."""
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, EnhancedNorm):
            continue
        kernel = module.dw.weight.detach().double().cpu()
        dirac = torch.zeros_like(kernel)
        dirac[:, :, module.k // 2, module.k // 2] = 1
        magnitude = kernel.abs().mean((0, 1))
        stage = STAGE.match(name)
        found.append(
            LearntKernel(
                layer=name,
                stage=stage[1] if stage else '',
                channels=module.num_features,
                k=module.k,
                outside=energy_outside_centre(kernel),
                distance=(kernel - dirac).flatten(1).norm(dim=1).mean().item(),
                profile=(magnitude / magnitude.sum().clamp(min=1e-300)).tolist(),
            )
        )
    return found


def receptive_field(model: nn.Module, size: int = 224, seed: int = 0) -> ReceptiveField:
    """Returns the effective receptive field of a model's backbone (Luo et al., arXiv 1701.04128).

    The gradient of the last map's centre, with random weights of its channels, with respect to
    random pictures.

    Args:
        model: in evaluation mode; a model of OpenMMLab with a backbone, or any network that gives
            maps.
        size: height and width of the pictures.
        seed: of the random numbers.

    Raises:
        InputError: the network gives no map for such pictures.
    """
    network = getattr(model, 'backbone', model)
    like = weight_of(model)
    generator = torch.Generator().manual_seed(seed)
    energy = torch.zeros(size, size, dtype=torch.float64)
    for _ in range(SAMPLES):
        shape = (getattr(network, 'num_segments', 1), 3, size, size)
        x = torch.randn(shape, generator=generator).to(like).requires_grad_()
        output = network(x)
        last = output[-1] if isinstance(output, (tuple, list)) else output
        if last.dim() != 4:
            raise InputError(f'{type(network).__name__} gives no map that a field could be of')
        centre = last[:, :, last.shape[2] // 2, last.shape[3] // 2]
        weights = torch.randn(centre.shape, generator=generator).to(centre)
        (gradient,) = torch.autograd.grad((centre * weights).sum(), x)
        energy += gradient.double().square().sum((0, 1)).cpu()
    if not energy.any():
        raise InputError(
            f"{type(network).__name__}'s last map does not depend on the picture: are its last "
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


def as_rich(kernels: Sequence[LearntKernel]) -> Table:
    """Returns a table with a line for each layer, and the mean of each stage."""
    table = Table(
        caption='Outside: share of the energy outside the centre taps, 0 for plain batch norm. '
        'Distance: from Dirac, the identity, mean over channels.',
        caption_justify='left',
    )
    table.add_column('Layer', overflow='fold')
    for column in ('Channels', 'k', 'Outside', 'Distance'):
        table.add_column(column, justify='right')
    for stage, members in by_stage(kernels).items():
        for m in members:
            row = (str(m.channels), str(m.k), f'{100 * m.outside:.1f} %', f'{m.distance:.3f}')
            table.add_row(m.layer, *row)
        means = mean(m.outside for m in members), mean(m.distance for m in members)
        title = f'mean of {stage}' if stage else 'mean'
        table.add_row(title, '', '', f'{100 * means[0]:.1f} %', f'{means[1]:.3f}', style='bold')
        table.add_section()
    return table


def as_json(kernels: Sequence[LearntKernel], fields: dict[str, ReceptiveField]) -> str:
    """Returns kernels and sizes of receptive fields as JSON."""
    sizes = {name: field.size for name, field in fields.items()}
    return json.dumps(
        {'kernels': [asdict(k) for k in kernels], 'receptive_field_sizes': sizes}, indent=2
    )


def draw_kernels(
    kernels: Sequence[LearntKernel], fields: dict[str, ReceptiveField], file: Path
) -> None:
    """Writes a sheet: each stage's mean kernel above, the receptive fields below.

    Args:
        kernels: see `learnt_kernels`.
        fields: receptive fields by the name to show, one or several to compare.
        file: a `.png`, `.pdf` or `.svg`.

    Raises:
        InputError: it cannot be written.
    """
    stages = by_stage(kernels)
    columns = max(len(stages), len(fields))
    figure = Figure(figsize=(2.6 * columns, 5.6), layout='constrained')
    axes = figure.subplots(2, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (stage, members) in zip(axes[0], stages.items(), strict=False):
        k = max(m.k for m in members)
        profiles = [torch.tensor(m.profile) for m in members if m.k == k]
        profile = torch.stack(profiles).mean(0).numpy()
        top = profile.max()
        ax.imshow(profile, cmap='viridis', vmin=0, vmax=top)
        for i in range(k):
            for j in range(k):
                color = 'black' if profile[i, j] > 0.6 * top else 'white'
                text = f'{100 * profile[i, j]:.0f}'
                ax.text(j, i, text, ha='center', va='center', color=color, fontsize=8)
        ax.set_title(f'{stage or "kernels"}: % of magnitude', fontsize=8)
    for ax, (name, field) in zip(axes[1], fields.items(), strict=False):
        ax.imshow(field.field.numpy(), cmap='inferno')
        ax.set_title(f'{name}: {field.size:.0f} pixels', fontsize=8)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = file.suffix.removeprefix('.') or 'png'
        write_whole(file, lambda part: figure.savefig(part, format=kind, dpi=130))
    except (OSError, ValueError) as error:
        raise InputError(f'{file} cannot be written: {error}') from error
