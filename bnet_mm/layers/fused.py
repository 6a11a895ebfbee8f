"""Normalization and depthwise transform in one step, where nothing is lost by it.

Called one after the other the two children would write the normalized map, and keep it for the
backward pass. `bnet_mm.kernels.operators` does without. Whoever looks at the children themselves
(hooks, tracers, another norm) gets the composed path, with the same numbers.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from bnet_mm.kernels import operators
from bnet_mm.kernels.synchronized import group_of, synchronized_transform
from bnet_mm.layers.depthwise import DepthwiseTransform

_HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
_GLOBAL_HOOKS = tuple(f'_global{hooks}' for hooks in _HOOKS)


def why_composed(layer: nn.Module, input: Tensor) -> str | None:
    """Returns why `layer` calls its children `norm` and `dw` one by one, or None if it does not.

    Args:
        layer: an `EnhancedNorm`.
        input: what it was given, `(N, C, H, W)`.
    """
    norm, dw = layer.norm, layer.dw
    if not operators.is_plain_call(input):
        return 'the layer is traced, exported, or called on or within something special'
    batch_norm = nn.modules.batchnorm._BatchNorm
    if not isinstance(norm, nn.SyncBatchNorm) and type(norm).forward is not batch_norm.forward:
        return f'there are no kernels for {type(norm).__name__}'
    if norm.weight is not None or norm.bias is not None:
        return 'its norm has a scale and a shift of its own'
    if type(dw).forward is not DepthwiseTransform.forward or any(
        'forward' in m.__dict__ for m in (norm, dw)
    ):
        return 'another forward has been put in the place of its transform or its norm'
    if any(getattr(m, hooks) for m in (norm, dw) for hooks in _HOOKS) or any(
        getattr(global_hooks, hooks) for hooks in _GLOBAL_HOOKS
    ):
        return 'there are hooks on its norm or on its transform'
    if dw.weight.shape != (dw.in_channels, 1, *dw.kernel_size):
        return 'its kernel has been given another shape'
    half = input.dtype in (torch.bfloat16, torch.float16)
    if dw.weight.dtype != input.dtype and not (half and dw.weight.dtype == torch.float32):
        return f'the kernel is of {dw.weight.dtype} and the map of {input.dtype}'
    if dw.weight.device != input.device:
        return 'the layer is on another device than its input'
    # Batch normalization has its own say on these: nothing to compute, or an error.
    if input.shape[1] != dw.in_channels or (
        input.numel() <= dw.in_channels and group_of(norm) is None
    ):
        return 'the map has another number of channels, or less than two values in each'
    return None


def fused_forward(
    norm: nn.modules.batchnorm._BatchNorm,
    dw: DepthwiseTransform,
    x: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """Returns `dw(norm(x))` and updates the running statistics as `norm` would.

    Args:
        norm: without scale and shift; its mode decides which statistics are used.
        dw: the kernel and its bias.
        x: `(N, C, H, W)`.
        residual: None, or what is added before a ReLU ends the residual block, as `x`; not with
            statistics over processes.
    """
    dilation = dw.dilation[0]
    if not norm.training and norm.running_mean is not None:
        dtype = torch.promote_types(x.dtype, torch.float32)
        rstd = (norm.running_var.to(dtype) + norm.eps).rsqrt()
        return operators.transform_frozen(
            x, dw.weight, dw.bias, norm.running_mean.to(dtype), rstd, dilation, residual
        )
    group = group_of(norm)
    if group is None:
        y, mean, var, _ = operators.transform_training(
            x, dw.weight, dw.bias, norm.eps, dilation, residual
        )
        count = x.numel() // x.shape[1]
    else:
        y, mean, var, count = synchronized_transform(
            x, dw.weight, dw.bias, norm.eps, dilation, group
        )
    if norm.training and norm.track_running_stats:
        update_running_statistics(norm, mean, var, count)
    return y


@torch.no_grad()
def update_running_statistics(norm, mean: Tensor, var: Tensor, count: int | Tensor) -> None:
    """Moves the running statistics towards a batch's own by the norm's momentum.

    Args:
        norm: a batch norm that tracks statistics.
        mean, var: of the batch, `(C,)`; `var` is the biased one.
        count: values per channel that they are of.
    """
    norm.num_batches_tracked.add_(1)
    factor = norm.momentum
    if factor is None:
        factor = 1.0 / norm.num_batches_tracked.item()
    if isinstance(count, Tensor):  # over processes, all of which may have been given nothing
        mean = torch.where(count > 1, mean, norm.running_mean.to(mean.dtype))
        var = torch.where(count > 1, var, norm.running_var.to(var.dtype))
        count = count.clamp(min=2)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), factor)
    norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var.dtype), factor)


def computed_by(layer: nn.Module, input: Tensor) -> str:
    """Returns in a few words how `layer` computes for `input`, and why not faster.

    Args:
        layer: an `EnhancedNorm`.
        input: `(N, C, H, W)`.
    """
    reason = why_composed(layer, input)
    if reason is not None:
        return f'norm, then depthwise convolution: {reason}'
    module, reason = operators.kernels(input, layer.k, layer.dilation)
    name = {'cpu': 'compiled CPU kernels', 'triton_kernels': 'Triton kernels'}.get(
        module.__name__.rpartition('.')[2], "torch's operators in one step"
    )
    return name if reason is None else f'{name}: {reason}'
