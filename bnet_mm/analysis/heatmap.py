"""Where BNET enhances: the heat maps of the paper's section 4.6 and figure 4."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnet_mm.analysis.layers import BACKBONE
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.running import (
    as_clip,
    as_frames,
    backbone_of,
    recorded,
    run_model,
    sized_errors,
    weight_of,
)

# Of a channel's largest value: what a float's rounding makes of a line, with room for sums of taps.
ROUNDINGS = 64


@dataclass(frozen=True)
class HeatMap:
    """What one BNET does to one image.

    Attributes:
        layer: its name in the model.
        channels: how many it has.
        above: at each position, in how many channels the output is above the line, `(H, W)` int64.
    """

    layer: str
    channels: int
    above: Tensor


def fit_line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns slope and intercept of the least squares line of y on x, for each channel, exactly.

    Args:
        x, y: pairs, `(N, C, H, W)`; a line is fitted to all of a channel's. Computed in float64.

    Returns:
        slope `(C,)` and intercept `(C,)`, float64. Where a channel's x is constant the slope is 0.
    """
    x, y = (t.double().transpose(0, 1).flatten(1) for t in (x, y))
    mean_x, mean_y = x.mean(1), y.mean(1)
    centred = x - mean_x[:, None]
    variance = centred.square().sum(1)
    covariance = (centred * (y - mean_y[:, None])).sum(1)
    slope = torch.where(variance > 0, covariance / variance.clamp(min=1e-300), 0.0)
    return slope, mean_y - slope * mean_x


def count_above(x: Tensor, y: Tensor) -> Tensor:
    """Returns in how many channels the output is above the line, at each position.

    A linear transformation of each pixel alone, as batch norm's, is its own line: nothing is above
    it, but by rounding, which does not count.

    Args:
        x: what goes into the linear transformation, `(N, C, H, W)`.
        y: what comes out of it, of the same size.

    Returns:
        `(N, H, W)` int64.
    """
    slope, intercept = (t.view(1, -1, 1, 1) for t in fit_line(x, y))
    line = slope * x.double() + intercept
    dims = (0, 2, 3)
    size = torch.maximum(y.double().abs().amax(dims), line.abs().amax(dims)).view(1, -1, 1, 1)
    rounding = ROUNDINGS * torch.finfo(y.dtype).eps * size
    return (y.double() - line > rounding).sum(1)


@torch.no_grad()
def heat_maps(model: nn.Module, images: Tensor, layers: list[str]) -> list[list[HeatMap]]:
    """Runs `model` as far as `layers` want it and returns their heat maps, for each image.

    Of a layer that is used several times, as a head's on each level of a pyramid, the map is that
    of the first time.

    Args:
        model: in evaluation mode; a model of OpenMMLab, or any network.
        images: `(N, 3, H, W)`, as the network takes them. A network that shifts between frames
            takes one image, as a clip that stands still, or as many frames as it shifts between.
        layers: names of BNETs. For those outside the backbone the heads are run, too.

    Raises:
        InputError: a layer was not used, or not on whole images, or the network cannot run on
            the images.
    """
    network = backbone_of(model)
    x = images.to(weight_of(model))
    frames = as_frames(model, x)
    taps = {name: f'{name}.dw' for name in layers}  # the linear transformations
    with recorded(model, list(taps.values())) as pairs, sized_errors(network, x):
        if network is model or all(name.startswith(BACKBONE) for name in layers):
            network(frames)
        else:
            run_model(model, as_clip(model, frames))
    for name in layers:
        if taps[name] not in pairs:
            raise InputError(f'{name} is not reached on an image; choose another layer')
        x = pairs[taps[name]][0]
        if x.dim() != 4 or len(x) != len(frames):
            raise InputError(
                f'{name} sees regions of an image and not the whole; choose another layer'
            )
    maps = []
    for i in range(len(images)):
        of_image = []
        for name in layers:
            x, y = (t[i : i + 1] for t in pairs[taps[name]])
            of_image.append(HeatMap(name, x.shape[1], count_above(x, y)[0]))
        maps.append(of_image)
    return maps
