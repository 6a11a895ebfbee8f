"""What a config's model costs, beside its BN baseline and beside the paper's figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import yaml
from mmengine.config import Config
from torch import Tensor, nn

from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.layers.binary import BINARY_OPERATIONS_PER_FLOP, BinaryConv2d
from bnet_mm.openmmlab.leftovers import frozen_by_config
from bnet_mm.openmmlab.models import build_model
from bnet_mm.openmmlab.norm_cfg import norm_specs
from bnet_mm.openmmlab.running import example_input, input_shape, run_model

PAPER_COSTS = Path(__file__).with_name('paper_costs.yml')
# What the counter of mmcv 1.x, which the paper's detection and segmentation figures come from,
# counts once for each element of the output or of the input. It does not know SyncBatchNorm.
BY_OUTPUT = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.ELU, nn.LeakyReLU)
BY_INPUT = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)
# mmcv's deformable convolutions are operators of its own, which torch's counter does not see.
DEFORMABLE = {'DeformConv2d', 'ModulatedDeformConv2d'}


@dataclass(frozen=True)
class Complexity:
    """What a network costs.

    Attributes:
        parameters: all parameters.
        trained: the parameters that are not frozen; the paper's `#Params` of its detectors.
        macs: multiply-accumulates of convolutions and matrix products; a k x k BNET adds k*k for
            each element of its output, and 64 binary ones count as one, as in Bi-Real Net's paper.
        flops: the paper's GFLOPs, in units: `macs`, 1 for each element of a convolution's output
            that gets a bias, of an activation and of what is pooled, and 2 for each element of a
            batch norm with scale and shift (1 without, none if it is synchronized).
    """

    parameters: int
    trained: int
    macs: int
    flops: int

    def __sub__(self, other: Complexity) -> Complexity:
        return Complexity(
            self.parameters - other.parameters,
            self.trained - other.trained,
            self.macs - other.macs,
            self.flops - other.flops,
        )


def _counter() -> type:
    try:
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError as error:
        raise InputError(
            f'operations are counted by torch 2.1 or later, and this is torch {torch.__version__}'
        ) from error
    return FlopCounterMode


def count_complexity(model: nn.Module, forward: Callable[[], object]) -> Complexity:
    """Counts one pass through `model`, made by calling `forward()`.

    Meta tensors will do: nothing needs to be computed.
    """
    elements, deformable, binary = [], [], []

    def count_elements(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        biased = isinstance(module, nn.modules.conv._ConvNd) and module.bias is not None
        if biased or isinstance(module, BY_OUTPUT):
            elements.append(output.numel())
        elif isinstance(module, BY_INPUT):
            elements.append(inputs[0].numel())
        elif isinstance(module, NORMS):
            affine = getattr(module, 'affine', True)
            elements.append(inputs[0].numel() * (2 if affine else 1))

    def count_deformable(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        deformable.append(output.numel() * module.weight[0].numel())

    def count_binary(module: BinaryConv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        binary.append(output.numel() * module.weight[0].numel())

    hooks = []
    for module in model.modules():
        hooks.append(module.register_forward_hook(count_elements))
        if DEFORMABLE & {base.__name__ for base in type(module).__mro__}:
            hooks.append(module.register_forward_hook(count_deformable))
        if isinstance(module, BinaryConv2d):
            hooks.append(module.register_forward_hook(count_binary))
    try:
        with torch.no_grad(), _counter()(display=False) as counter:
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    macs = counter.get_total_flops() // 2 + sum(deformable)
    macs -= sum(binary) - sum(binary) // BINARY_OPERATIONS_PER_FLOP
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Complexity(
        parameters=sum(size for size, _ in sizes),
        trained=sum(size for size, trained in sizes if trained),
        macs=macs,
        flops=macs + sum(elements),
    )


@dataclass(frozen=True)
class CostRow:
    """One line of a table of costs.

    Attributes:
        name: the config, or the paper's model.
        norm: the norm, as the paper writes it.
        shape: height and width of the input.
        cost: what it costs.
        over_bn: what that is more than the same network with plain BN.
        paper: the paper's `table`, `params` (millions), `gflops` and `fps`, as far as it has them.
    """

    name: str
    norm: str
    shape: tuple[int, int]
    cost: Complexity
    over_bn: Complexity
    paper: dict


def config_costs(path: str | Path, shape: tuple[int, int] | None, options: dict | None) -> CostRow:
    """Returns the costs of the model of a config file, without any dataset or weights.

    Args:
        path: the config, of any OpenMMLab library.
        shape: height and width of the input; without it the library's usual one, at which the
            paper's figures hold.
        options: entries of the config to change.

    Raises:
        InputError: the config cannot be read or built, or its model cannot run on an image alone.
    """
    cfg = load_config(path, options)
    paper = {}
    if shape is None and not options:
        paper = paper_row(Path(path).stem)
    shape = shape or input_shape(cfg)
    for sentence in frozen_by_config(cfg.get('model')):
        warnings.warn(f'{path}: kernels do not train: {sentence}', stacklevel=2)
    norms = list(dict.fromkeys(str(spec) for _, _, spec in norm_specs(cfg.get('model'))))
    cost = _count(cfg, shape)
    baseline = _count(bn_baseline(cfg), shape) if norms else cost
    norm = ', '.join(norms) or str(
        cfg.model.get('backbone', {}).get('norm_cfg', {}).get('type', '-')
    )
    return CostRow(Path(path).stem, norm, shape, cost, cost - baseline, paper)


def bn_baseline(cfg: Config) -> Config:
    """Returns a copy of `cfg` in which every BNET is the plain batch norm it was built on."""
    baseline = deepcopy(cfg)
    for _, norm_cfg, spec in list(norm_specs(baseline.model)):
        norm_cfg.clear()
        norm_cfg.update(spec.plain)
    return baseline


def paper_costs(configs: str | Path) -> Iterator[CostRow]:
    """Yields every row of the paper that has a cost column, with ours beside it.

    Args:
        configs: the folder of this package's configs.
    """
    for row in _paper_rows():
        name = f'{row["model"]}, table {row["table"]}'
        ours = _shipped(str(Path(configs) / f'{row["config"]}.py'))
        yield CostRow(name, row['norm'], ours.shape, ours.cost, ours.over_bn, row)


@lru_cache(maxsize=None)
def _shipped(path: str) -> CostRow:
    return config_costs(path, None, None)


@lru_cache(maxsize=None)
def _paper_rows() -> list[dict]:
    return yaml.safe_load(PAPER_COSTS.read_text())


def paper_row(config: str) -> dict:
    """Returns the paper's costs of a config, those of the first table it stands in, or nothing."""
    return next((row for row in _paper_rows() if row['config'] == config), {})


def _count(cfg: Config, shape: tuple[int, int]) -> Complexity:
    def count_on(device: str) -> Complexity:
        model = build_model(cfg, device)
        inputs = example_input(model, shape, cfg)
        return count_complexity(model, lambda: run_model(model, inputs))

    try:
        return count_on('meta')
    except (RuntimeError, TypeError):
        # Some models decide by values, or use operators that have no meta version: these compute.
        return count_on('cpu')
