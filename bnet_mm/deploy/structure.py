"""The modules of a folded model, and the description from which they are built again."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.layers import DepthwiseTransform, EnhancedNorm, named_norms
from bnet_mm.layers.plain import BatchNorm2d, own_affine
from bnet_mm.models.norms import FrozenStatistics
from bnet_mm.models.residual_blocks import parts_of


@dataclass
class Fusion:
    """What was done to a model, in names and plain values.

    Attributes:
        folded: name of each norm that is gone -> names of the convolutions that took it in (several
            where one norm stood after several convolutions).
        taps: those of them that were BNET, whose kernels remain, and k.
        ends: names of the residual blocks whose kernels, addition and ReLU are one call.
        left: name of each batch norm or BNET that stayed -> why.
        apart: name of each residual block that ends in BNET and stayed as it was -> why.
        split: names of the norms that came apart from an activation in them, or from constants.
        centred: names of the BNETs that became batch norms, as their kernels are zero around the
            centre; those that are folded are in `folded`.
        plain: whether only modules of torch remain.
        difference: largest difference of an output from the trained model's, both in float64,
            relative to the largest value of that output; a model that cannot be run in float64 is
            compared in its own type.
    """

    folded: dict[str, list[str]] = field(default_factory=dict)
    taps: dict[str, int] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)
    split: list[str] = field(default_factory=list)
    centred: list[str] = field(default_factory=list)
    plain: bool = False
    difference: float = 0.0


class Taps(DepthwiseTransform):
    """The kernel of a BNET whose normalization is in the convolution before it.

    Shape:
        weight `(C, 1, k, k)`, bias `(C,)`; input and output `(N, C, H, W)`.
    """


class FixedNorm(nn.Module):
    """A batch norm in evaluation mode, to the bit, that nothing takes for a batch norm.

    One that stays in a folded model must not be found by `mmcv.cnn.fuse_conv_bn`, which goes by the
    order of children: with the norm in between gone, it would fold this one into a convolution
    that it does not follow.

    Shape:
        input and output `(N, C, ...)`.
    """

    def __init__(self, norm: _BatchNorm):
        super().__init__()
        self.eps = norm.eps
        self.register_parameter('weight', norm.weight)
        self.register_parameter('bias', norm.bias)
        self.register_buffer('running_mean', norm.running_mean)
        self.register_buffer('running_var', norm.running_var)

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class ResidualBlock(nn.Module):
    """A residual block that ends in BNET, for inference; made by `ResidualBlock.of`.

    It has the block's children under the block's names, and so the same tensors.

    Args:
        block: the block whose children it takes over.
        body: names, with dots, of the modules up to the last convolution, in order.
        taps: name of the last norm's kernel.

    Shape:
        input `(N, C, H, W)`, output as the block's.
    """

    def __init__(self, block: nn.Module, body: list[str], taps: str):
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        self.body, self.taps = tuple(body), taps
        self.train(block.training)

    @classmethod
    def of(cls, block: nn.Module, taps_class: type[nn.Module]) -> ResidualBlock | str:
        """Returns `block` with its end joined, or why that cannot be done.

        Args:
            block: its last norm is folded already.
            taps_class: what then stands in that norm's place.
        """
        parts = parts_of(block)
        if isinstance(parts, str):
            return parts
        if block._forward_hooks or block._forward_pre_hooks or 'forward' in vars(block):
            return 'it has hooks'
        norm = block.get_submodule(parts.norm)
        if not isinstance(norm, taps_class):
            return 'its last norm is not folded'
        if norm._forward_hooks or norm._forward_pre_hooks:
            return 'its last norm has hooks'
        body = [n for n in parts.body if type(block.get_submodule(n)) is not nn.Identity]
        return cls(block, body, parts.norm)

    def forward(self, input: Tensor) -> Tensor:
        downsample = self._modules.get('downsample')
        identity = input if downsample is None else downsample(input)
        output = input
        for name in self.body:
            output = attrgetter(name)(self)(output)
        return attrgetter(self.taps)(self).end_of_block(output, identity)


def statistics_of(norm: nn.Module) -> nn.Module:
    """Returns the module with the statistics: a BNET's `norm`, or a batch norm itself."""
    return norm.norm if isinstance(norm, EnhancedNorm) else norm


def is_foldable(module: nn.Module) -> bool:
    """Tells whether a module is a batch norm over maps, or a BNET."""
    return isinstance(module, EnhancedNorm) or _is_batch_norm_2d(module)


def norms_of(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the batch norms over maps and the BNETs of `model` by name, each module once."""
    return {name: norm for name, norm in named_norms(model) if is_foldable(norm)}


def unfit(norm: nn.Module) -> str | None:
    """Returns why a norm can be folded into nothing, or None."""
    statistics = statistics_of(norm)
    if isinstance(norm, EnhancedNorm) and type(norm).forward is not EnhancedNorm.forward:
        return f'{type(norm).__name__} computes something of its own'
    if not _is_batch_norm_2d(statistics):
        return f'its normalization is {type(statistics).__name__}'
    if statistics.running_mean is None or statistics.running_var is None:
        return 'it has no running statistics'
    if is_watched(norm) or is_watched(statistics):
        return 'it has hooks'
    return None


def is_watched(module: nn.Module) -> bool:
    """Tells whether more hangs on a module's call: hooks, another forward, parametrizations."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or 'forward' in vars(module)
        or 'parametrizations' in module._modules
    )


def folded_tensors(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Returns weight and bias, in float64, that give `conv` the normalization of `norm` as well.

    Scale and shift of a plain batch norm go in, too; the kernel of a BNET does not: it pads the
    normalized map with zeros, where the convolution's own map has none.
    """
    statistics = statistics_of(norm)
    scale = (statistics.running_var.double() + statistics.eps).rsqrt()
    shift = -statistics.running_mean.double() * scale
    own_scale, own_shift = own_affine(statistics)
    if own_scale is not None:
        scale, shift = scale * own_scale.double(), shift * own_scale.double()
    if own_shift is not None:
        shift = shift + own_shift.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    return conv.weight.double() * scale.view(-1, 1, 1, 1), shift


def set_tensors(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Gives `conv` this weight and bias, in the type and with the `requires_grad` of its own."""
    old = conv.weight
    conv.weight = nn.Parameter(weight.detach().to(old.dtype), requires_grad=old.requires_grad)
    conv.bias = nn.Parameter(bias.detach().to(old.dtype), requires_grad=old.requires_grad)


def remains_of(norm: nn.Module) -> nn.Module:
    """Returns what stands in the place of a folded norm: the kernel of a BNET, or nothing."""
    if not isinstance(norm, EnhancedNorm):
        return nn.Identity()
    weight = norm.dw.weight
    taps = Taps(norm.num_features, norm.k, norm.dilation, device=weight.device, dtype=weight.dtype)
    taps.weight, taps.bias = norm.dw.weight, norm.dw.bias
    return taps.train(norm.training)


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts `new` into every place that `old` has below `model`."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def fix_norms(model: nn.Module) -> None:
    """Turns the batch norms that stay, of any dimension, into `FixedNorm`; BNET keeps its own.

    A norm with hooks keeps them, and stays a batch norm.
    """
    for _, norm in list(named_norms(model)):
        plain = _is_batch_norm_2d(norm) or type(norm) in (nn.BatchNorm1d, nn.BatchNorm3d)
        if plain and norm.running_mean is not None and not is_watched(norm):
            replace(model, norm, FixedNorm(norm).eval())


def _is_batch_norm_2d(module: nn.Module) -> bool:
    # Exact types, as in bnet_mm.models.placement: a subclass may do more than normalize.
    # mmengine's own, known by name, only differs in how it checks the input.
    by_name = type(module).__name__ in ('SyncBatchNorm', '_BatchNormXd')
    return type(module) in (nn.BatchNorm2d, BatchNorm2d, FrozenStatistics) or (
        by_name and isinstance(module, _BatchNorm)
    )
