"""Where BNET enhances: the heat maps of the paper's section 4.6 and figure 4."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnet_mm.deploy.sample import weight_of
from bnet_mm.errors import InputError
from bnet_mm.norm import EnhancedNorm

STAGE = re.compile(r'(.*\blayer\d+)\.')
# Of a channel's largest value: what a float's rounding makes of a line, with room for sums of taps.
ROUNDINGS = 64


@dataclass(frozen=True)
class HeatMap:
    """What one BNET does to one picture.

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


def last_of_each_stage(model: nn.Module) -> list[str]:
    """Returns the last BNET of each stage: those whose blocks feed a feature pyramid (figure 4)."""
    names = [name for name, m in model.named_modules() if isinstance(m, EnhancedNorm)]
    stages = {match[1] if (match := STAGE.match(name)) else '': name for name in names}
    return list(stages.values())


def chosen_layers(model: nn.Module, names: list[str] | None) -> list[str]:
    """Returns the BNETs that are meant by `names`, or the last of each stage.

    Args:
        model: any model.
        names: full names of BNETs, or the ends of such names.

    Raises:
        InputError: the model has no BNET, or none of such a name.
    """
    known = [name for name, m in model.named_modules() if isinstance(m, EnhancedNorm)]
    if not known:
        raise InputError(
            f'{type(model).__name__} has no BNET, and a plain norm enhances nothing: its heat map '
            f'would be flat'
        )
    if not names:
        return last_of_each_stage(model)
    chosen = []
    for name in names:
        found = [k for k in known if k == name or k.endswith(f'.{name}')]
        if len(found) != 1:
            what = 'no' if not found else f'{len(found)} BNETs'
            raise InputError(
                f'{what} BNET is called {name}; there are {", ".join(known[:4])}, ... {known[-1]}'
                if not found
                else f'{what} have names that end in {name}: {", ".join(found[:3])}'
            )
        chosen += found
    return chosen


@torch.no_grad()
def heat_maps(model: nn.Module, input: Tensor, layers: list[str]) -> list[HeatMap]:
    """Runs the backbone of `model` on one picture and returns the heat maps of `layers`.

    Args:
        model: in evaluation mode; a model of OpenMMLab with a backbone, or any network.
        input: `(1, 3, H, W)`, as the network takes it.
        layers: names of BNETs.

    Raises:
        InputError: a layer was not used, or the network cannot run on the picture.
    """
    network = getattr(model, 'backbone', model)
    frames = getattr(network, 'num_segments', 1)  # a network that shifts between frames
    with _recorded(model, layers) as pairs:
        try:
            network(input.to(weight_of(model)).expand(frames, -1, -1, -1))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f'{type(network).__name__} cannot run on a picture of {input.shape[-1]}x'
                f'{input.shape[-2]}: {reason}'
            ) from error
    unused = [name for name in layers if name not in pairs]
    if unused:
        raise InputError(f'{unused[0]} is not reached by the backbone; choose another layer')
    return [HeatMap(name, pairs[name][0].shape[1], count_above(*pairs[name])[0]) for name in layers]


@contextmanager
def _recorded(model: nn.Module, layers: list[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Gathers what goes into each layer's linear transformation and what comes out."""
    pairs: dict[str, tuple[Tensor, Tensor]] = {}

    def record_of(name: str):
        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            pairs[name] = inputs[0].detach().clone(), output.detach().clone()

        return record

    handles = [
        model.get_submodule(name).dw.register_forward_hook(record_of(name)) for name in layers
    ]
    try:
        yield pairs
    finally:
        for handle in handles:
            handle.remove()
