"""Counts what one forward pass of a network costs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bnet_mm.layers.binary import BINARY_OPERATIONS_PER_FLOP, BinaryConv2d

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

    def __sub__(self, other: 'Complexity') -> 'Complexity':
        return Complexity(
            self.parameters - other.parameters,
            self.trained - other.trained,
            self.macs - other.macs,
            self.flops - other.flops,
        )


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
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
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
