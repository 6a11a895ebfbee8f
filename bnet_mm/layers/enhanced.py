"""Any norm with its scale and shift replaced by a depthwise convolution.

Called one after the other, its two children would write the normalized feature map and keep it for
the backward pass. Where nothing is lost by it both are one step (`bnet_mm.kernels.operators`);
whoever looks at the children themselves (hooks, tracers, another norm) gets them one by one, with
the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from bnet_mm.errors import InputError
from bnet_mm.kernels.backend import choose
from bnet_mm.kernels.eager import acc_dtype
from bnet_mm.kernels.operators import (
    infer,
    is_plain_call,
    normalize_transform,
    torch_is_faster,
    wants_gradient,
)
from bnet_mm.kernels.statistics import (
    group_of,
    synchronized_transform,
    update_running_statistics,
)
from bnet_mm.kernels.versions import is_autocast_enabled, is_dynamo_compiling
from bnet_mm.layers.depthwise import DepthwiseTransform, dirac_kernel
from bnet_mm.layers.plain import AffineView, BatchNorm2d, Owner, SyncBatchNorm, leaf

_HOOKS = tuple(
    hooks
    for hooks in ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    if hasattr(global_hooks, f'_global{hooks}')  # the last since torch 2.0
)
_GLOBAL_HOOKS = tuple(f'_global{hooks}' for hooks in _HOOKS)


class EnhancedNorm(Owner):
    """`y = depthwise_kxk(norm(x)) + bias`, zero padding on the normalized feature map (eq. 5).

    Composition keeps it whole. A subclass of torch's `_BatchNorm` is rebuilt as a bare norm by
    `convert_sync_batchnorm` and `revert_sync_batchnorm`, which never look at its kernel again; here
    they convert the child `norm` and leave `dw` alone. No parameter of the layer itself is called
    `weight`: initializers of other libraries fill a norm's `weight` with ones.

    A state dict of the plain norm (`weight`, `bias` and the statistics) loads into it, strictly,
    and the outputs do not change: the scale goes to the centre tap, the shift to the bias.

    Args:
        norm: the normalization, without scale and shift of its own (`affine=False`).
        num_features: channels C.
        k: kernel size, odd; 1 is the plain affine norm.
        dilation: distance between neighbouring taps, in pixels.
        positions: None or 'all'; a layer does not place itself.

    Shape:
        input and output `(N, C, H, W)`.

    Raises:
        InputError: `k` is not a positive odd integer, `dilation` not a positive integer, or
            `positions` came from a network that does not place norms.
    """

    if TYPE_CHECKING:  # torch.jit.script reads annotations of classes, and needs the real ones
        norm: Any
        dw: DepthwiseTransform
    # Blocks are named after it (bn1, bn2, bn3), as with plain batch normalization.
    _abbr_ = 'bn'
    __jit_unused_properties__ = ['num_features', 'k', 'dilation', 'weight', 'bias']

    def __init__(
        self,
        norm: nn.Module,
        num_features: int,
        k: int,
        dilation: int = 1,
        positions: str | None = None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        check_not_placed(type(self).__name__, positions)
        self.norm = norm
        self.dw = DepthwiseTransform(num_features, k, dilation, device=device, dtype=dtype)

    @classmethod
    def from_norm(cls, norm: Any, k: int = 3, dilation: int = 1) -> EnhancedNorm:
        """Returns the layer around an existing norm, which computes the same.

        The norm becomes the layer's child and loses its scale and shift to the kernel and its
        bias; device, type, mode and `requires_grad` carry over.
        """
        tensors = [*norm.parameters(), *norm.buffers()]
        scale, shift = norm._parameters.get('weight'), norm._parameters.get('bias')
        if scale is not None:
            norm.weight = norm.bias = None
        layer = cls.__new__(cls)
        EnhancedNorm.__init__(
            layer,
            norm,
            norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features,
            k,
            dilation,
            device=tensors[0].device if tensors else None,
            dtype=next((t.dtype for t in tensors if t.is_floating_point()), None),
        )
        if scale is not None:
            with torch.no_grad():
                layer.dw.weight.copy_(dirac_kernel(scale, layer.k))
                layer.dw.bias.copy_(shift)
            layer.dw.requires_grad_(scale.requires_grad)
        if 'affine' in vars(norm):
            norm.affine = False
        return layer.train(norm.training)

    @property
    def num_features(self) -> int:
        """Channels C."""
        return self.dw.in_channels

    @property
    def k(self) -> int:
        """Kernel size."""
        return self.dw.kernel_size[0]

    @property
    def dilation(self) -> int:
        """Distance between neighbouring taps, in pixels."""
        return self.dw.dilation[0]

    @property
    def weight(self) -> AffineView:
        """The centre taps, `(C,)`: a view that is read and written as a norm's scale."""
        return AffineView.of(self.dw.weight, (slice(None), 0, self.k // 2, self.k // 2))

    @property
    def bias(self) -> AffineView:
        """The bias, `(C,)`: a view that is read and written as a norm's shift."""
        return AffineView.of(self.dw.bias, ...)

    def reset_parameters(self) -> None:
        """Resets the statistics as the norm does, the kernel to Dirac and the bias to 0."""
        self.norm.reset_parameters()
        self.dw.reset_parameters()

    def zero_output(self) -> None:
        """Makes kernel and bias 0, as `zero_init_residual` makes the scale of a block's last norm.

        The kernel still gets a gradient, and the block learns from the first step.
        """
        nn.init.zeros_(self.dw.weight)
        nn.init.zeros_(self.dw.bias)

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.dw(self.norm(input))
        else:  # noqa: RET505  (torch.jit.script leaves out this branch, and only a branch)
            return self._forward(input)

    def _forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):  # torch.fx's stand-in: a step of the graph, as BN is
            return leaf(self, input) if input.tracer.root is not self else self.dw(self.norm(input))
        # The norm's own check is gone once a library has converted it to synchronized statistics
        # and back, and a convolution would read a (C, H, W) tensor as an unbatched image.
        if input.dim() != 4:
            kind = {5: '; 3-D networks (I3D and its like) keep their own norm'}
            raise InputError(
                f'{type(self).__name__}: expected a 4-D input (N, C, H, W), got {input.dim()}-D of '
                f'shape {tuple(input.shape)}{kind.get(input.dim(), "")}'
            )
        norm, dw = self.norm, self.dw  # each a call of `nn.Module.__getattr__`
        if _fallback_reason(norm, dw, input) is None:
            return _fused(norm, dw, input)
        return dw(norm(input))

    def end_of_block(self, input: Tensor, residual: Tensor) -> Tensor:
        """Returns `relu(self(input) + residual)`, in one step where that can be.

        Args:
            input: `(N, C, H, W)`.
            residual: the block's other branch, of the same size.
        """
        if (
            has_hooks(self)
            or 'forward' in self.__dict__
            or residual.shape != input.shape
            or residual.dtype != input.dtype
            or input.dim() != 4
            or not is_plain_call(residual)
            or self.fallback_reason(input) is not None
            or group_of(self.norm) is not None
        ):
            return (self(input) + residual).relu()
        return _fused(self.norm, self.dw, input, residual)

    def fallback_reason(self, input: Tensor) -> str | None:
        """Returns why `norm` and `dw` are called one by one for an input, or None if they are not.

        Args:
            input: `(N, C, H, W)`.
        """
        return _fallback_reason(self.norm, self.dw, input)

    def computed_by(self, input: Tensor) -> str:
        """Returns in a few words how the layer computes for an input, and why not faster.

        Args:
            input: `(N, C, H, W)`.
        """
        reason = self.fallback_reason(input)
        if reason is not None:
            return f'norm, then depthwise convolution: {reason}'
        if not self.norm.training and self.norm.running_mean is not None:
            with torch.no_grad():
                if _is_for_torch(self.norm, self.dw, input):
                    return 'norm, then depthwise convolution: faster in inference for this size'
        backend, reason = choose(input, self.k, self.dilation)
        return backend.name if reason is None else f'{backend.name}: {reason}'

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a child; this is how conversions put another norm in the place of `norm`.

        Raises:
            InputError: that norm is a synchronized one of another library, which cannot do without
                a scale and shift of its own.
        """
        if name == 'norm' and type(module).__module__.endswith('.ops.sync_bn'):
            raise InputError(
                f"BNET cannot use {type(module).__module__.partition('.')[0]}'s own SyncBatchNorm: "
                f"say sync_bn='torch', or type='SyncBNET'"
            )
        super().add_module(name, module)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # By keys and shapes, not by `_version`: checkpoint loaders drop the metadata.
        of_norm = ('running_mean', 'running_var', 'num_batches_tracked', *self.norm.state_dict())
        renamed = {
            **{name: f'norm.{name}' for name in of_norm},
            'weight': 'dw.weight',
            'bias': 'dw.bias',
            'bnconv.weight': 'dw.weight',  # the paper's authors' name of the kernel
            'bnconv.bias': 'dw.bias',
        }
        for theirs, ours in renamed.items():
            if prefix + theirs in state_dict:
                value = state_dict.pop(prefix + theirs)
                if theirs == 'weight' and value.ndim == 1:
                    value = dirac_kernel(value, self.k)
                state_dict[prefix + ours] = value
        super()._load_from_state_dict(state_dict, prefix, *args)


def _fallback_reason(norm: Any, dw: DepthwiseTransform, input: Tensor) -> str | None:
    if not is_plain_call(input):
        return 'the layer is traced, exported, or called on or within something special'
    kind = type(norm)
    if kind is not BatchNorm2d and kind is not SyncBatchNorm:
        return f'no back end computes {kind.__name__}'
    if norm._parameters.get('weight') is not None:
        return 'its norm has a scale and a shift of its own'
    if norm.num_features != dw.in_channels or (norm.running_mean is None) != (
        norm.running_var is None
    ):
        return 'its norm is of another number of channels, or lacks one of its statistics'
    if (
        type(dw).forward is not DepthwiseTransform.forward
        or 'forward' in norm.__dict__
        or 'forward' in dw.__dict__
    ):
        return 'another forward has been put in the place of its transform or its norm'
    if has_hooks(norm) or has_hooks(dw) or has_global_hooks():
        return 'there are hooks on its norm or on its transform'
    weight, channels, dtype = dw.weight, dw.in_channels, input.dtype
    if weight.shape != (channels, 1, *dw.kernel_size) or dw.bias is None:
        return 'its kernel has been given another shape, or has lost its bias'
    if weight.dtype != dtype and not (
        weight.dtype == torch.float32 and dtype in (torch.bfloat16, torch.float16)
    ):
        return f'the kernel is of {weight.dtype} and the feature map of {dtype}'
    if weight.device != input.device:
        return 'the layer is on another device than its input'
    # Batch normalization has its own say on these: nothing to compute, or an error.
    if input.shape[1] != channels or (input.numel() <= channels and group_of(norm) is None):
        return 'the feature map has another number of channels, or less than two values in each'
    return None


def _fused(norm: Any, dw: DepthwiseTransform, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Returns the output in one step, and updates the running statistics as the norm would.

    With a residual it is added before a ReLU; not with statistics over processes.
    """
    weight, bias, dilation = dw.weight, dw.bias, dw.dilation[0]
    if not norm.training and (mean := norm.running_mean) is not None:
        var = norm.running_var
        if not wants_gradient(x, weight, bias, residual):
            if residual is None and _is_for_torch(norm, dw, x):
                # Not by the children: their own questions take longer than a small map.
                x = F.batch_norm(x, mean, var, None, None, False, 0.0, norm.eps)
                padding = dilation * (dw.kernel_size[0] // 2)
                return F.conv2d(x, weight, bias, 1, padding, dilation, dw.in_channels)
            if not is_dynamo_compiling():
                return infer(x, weight, bias, mean, var, norm.eps, dilation, residual)
        if mean.dtype != acc_dtype(x):
            mean, var = mean.to(acc_dtype(x)), var.to(acc_dtype(x))
        frozen = mean, (var + norm.eps).rsqrt()
        return normalize_transform(x, weight, bias, frozen, norm.eps, dilation, residual)[0]
    group = group_of(norm)
    count: int | Tensor = x.numel() // x.shape[1]
    if group is None:
        y, mean, var = normalize_transform(x, weight, bias, None, norm.eps, dilation, residual)
    else:
        y, mean, var, count = synchronized_transform(x, weight, bias, norm.eps, dilation, group)
    if norm.training and norm.track_running_stats and mean is not None and var is not None:
        update_running_statistics(norm, mean, var, count)
    return y


def _is_for_torch(norm: Any, dw: DepthwiseTransform, x: Tensor) -> bool:
    """Tells whether torch's operators are to compute an inference, of which nothing is kept."""
    # A compiler fuses them with what is around them.
    if not is_dynamo_compiling() and not torch_is_faster(x, dw.kernel_size[0], dw.dilation[0]):
        return False
    if not x.dtype == dw.weight.dtype == norm.running_mean.dtype:
        return False
    return not is_autocast_enabled(x.device.type)  # in which a convolution is of another type


def has_hooks(module: nn.Module) -> bool:
    """Tells whether somebody wants to be called when a module is, or its gradient is."""
    own = module.__dict__
    for hooks in _HOOKS:  # noqa: SIM110  (asked in every call, and a loop is the faster way)
        if own[hooks]:
            return True
    return False


def has_global_hooks() -> bool:
    """Tells whether somebody wants to be called whenever any module is."""
    own = global_hooks.__dict__
    for hooks in _GLOBAL_HOOKS:  # noqa: SIM110
        if own[hooks]:
            return True
    return False


def check_not_placed(layer: str, positions: str | None) -> None:
    """Checks that nobody expects a layer to place itself.

    Raises:
        InputError: `positions` came from a network that does not take it out, so that the network
            would silently differ from what was asked for.
    """
    if positions not in (None, 'all'):
        raise InputError(
            f'{layer}: positions={positions!r} was given to a network that does not place norms. '
            f'Leave positions out to enhance every norm that it builds, or build the network with '
            f"the plain norm and call bnet_mm.enhance(model, k, positions='...')"
        )
