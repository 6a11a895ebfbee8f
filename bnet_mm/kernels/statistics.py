"""Statistics beyond one batch on one process: running averages, and batches over processes.

Processes may have shares of a batch of different sizes, or empty ones; there is one collective in
the forward and one in the backward pass, on a CPU too, where torch's SyncBatchNorm does not train.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnet_mm.kernels.backend import choose
from bnet_mm.kernels.eager import acc_dtype

# Before anything can put another in its place.
_torch_forward = nn.SyncBatchNorm.forward


def update_running_statistics(
    norm: Any, mean: Tensor, var: Tensor, count: int | Tensor | None = None
) -> None:
    """Moves the running statistics of a norm towards a batch's own, by the norm's momentum.

    Args:
        norm: a batch norm that tracks statistics.
        mean, var: of the batch, `(C,)`, which need no gradient; var is the biased variance.
        count: values per channel that they are of, for the unbiased variance as batch norm tracks
            it; None to track the biased one.
    """
    norm.num_batches_tracked.add_(1)
    factor = norm.momentum
    if factor is None:
        factor = 1.0 / norm.num_batches_tracked.item()
    if isinstance(count, Tensor):  # over processes, all of which may have been given nothing
        mean = torch.where(count > 1, mean, norm.running_mean.to(mean.dtype))
        var = torch.where(count > 1, var, norm.running_var.to(var.dtype))
        count = count.clamp(min=2)
    if count is not None:
        var = var * (count / (count - 1))
    running_mean, running_var = norm.running_mean, norm.running_var
    running_mean.lerp_(mean.to(running_mean.dtype), factor)
    running_var.lerp_(var.to(running_var.dtype), factor)


def group_of(norm: nn.Module) -> dist.ProcessGroup | None:
    """Returns the processes that share statistics with this one in the norm's current mode.

    None where it has the batch to itself: with plain batch norm, in evaluation mode, or alone.
    """
    if not isinstance(norm, nn.SyncBatchNorm) or not norm.training:
        return None
    if not (dist.is_available() and dist.is_initialized()):
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def batch_norm(norm: Any, input: Tensor) -> Tensor:
    """Returns what a batch norm computes on this process alone, with its own tensors.

    Args:
        norm: the layer; where `weight` and `bias` are not its parameters, they are not used.
        input: `(N, C, ...)`.
    """
    factor = 0.0 if norm.momentum is None else norm.momentum
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    tracked = not norm.training or norm.track_running_stats
    own = norm._parameters  # of which dynamo before torch 2.2 knows no `get`
    return F.batch_norm(
        input,
        norm.running_mean if tracked else None,
        norm.running_var if tracked else None,
        own['weight'] if 'weight' in own else None,  # noqa: SIM401
        own['bias'] if 'bias' in own else None,  # noqa: SIM401
        norm.training or (norm.running_mean is None and norm.running_var is None),
        factor,
        norm.eps,
    )


def synchronized_batch_norm(norm: nn.SyncBatchNorm, input: Tensor) -> Tensor:
    """Returns what a synchronized batch norm computes, on a CPU too.

    Args:
        norm: the layer, with or without scale and shift.
        input: `(N, C, ...)`.

    Raises:
        ValueError: all processes together have one value per channel.
    """
    if input.device.type != 'cpu' and type(norm) is nn.SyncBatchNorm:
        return _torch_forward(norm, input)
    group = group_of(norm)
    if group is None:
        return batch_norm(norm, input)
    # A scale and a shift are a kernel of one tap and its bias.
    channels = input.shape[1]
    x = input.reshape(len(input), channels, prod(input.shape[2:]), 1)
    own = norm._parameters
    weight = x.new_ones(channels) if own.get('weight') is None else norm.weight
    bias = x.new_zeros(channels) if own.get('bias') is None else norm.bias
    y, mean, var, count = synchronized_transform(
        x, weight.view(-1, 1, 1, 1), bias, norm.eps, 1, group
    )
    if norm.track_running_stats:
        update_running_statistics(norm, mean, var, count)
    return y.reshape(input.shape)


def synchronized_transform(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dilation: int, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns BNET's output with the statistics of the joined batch, and these.

    Args:
        x: this process's share, `(N, C, H, W)`; N may be 0.
        weight, bias: the kernel `(C, 1, k, k)` and its bias `(C,)`.
        eps: added to the variance.
        dilation: distance between neighbouring taps, in pixels.
        group: the processes that share the batch.

    Returns:
        output, mean `(C,)`, biased variance `(C,)`, values per channel over all processes `()`.

    Raises:
        ValueError: all processes together have one value per channel.
    """
    return _SynchronizedTransform.apply(x, weight, bias, eps, dilation, group)


class _SynchronizedTransform(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps, dilation, group):
        backend, _ = choose(x, weight.shape[-1], dilation)
        mean, var, total = _joined(backend, x, group)
        invstd = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, invstd, total)
        ctx.backend, ctx.dilation, ctx.group, ctx.bias_dtype = backend, dilation, group, bias.dtype
        ctx.mark_non_differentiable(mean, var, total)
        y = x.clone()
        if x.numel():
            y = backend.forward(x, weight, bias, mean, invstd, dilation)
        return y, mean, var, total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output, *_):
        x, weight, mean, invstd, total = ctx.saved_tensors
        args = grad_output, x, weight, mean, invstd
        grad_weight, grad_bias = torch.zeros_like(weight, dtype=mean.dtype), torch.zeros_like(mean)
        sum_dy = grad_bias
        if x.numel():
            grad_weight, grad_bias, sum_dy = ctx.backend.backward_reduce(*args, ctx.dilation)
        # The sum of dy * x_hat: the output is linear in both.
        sums = torch.cat([sum_dy, (weight.to(mean.dtype) * grad_weight).sum((1, 2, 3))])
        dist.all_reduce(sums, group=ctx.group)
        mean_dy, mean_dy_xmu = (sums / total).to(mean.dtype).chunk(2)
        grad_x = x.clone()
        if x.numel():
            grad_x = ctx.backend.backward_input(*args, mean_dy, mean_dy_xmu, ctx.dilation)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(ctx.bias_dtype), None, None, None


def _joined(backend, x: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean, biased variance and number of values per channel over all processes."""
    channels = x.shape[1]
    values = x.numel() // channels
    mean = var = x.new_zeros(channels, dtype=acc_dtype(x))
    if values:
        mean, var = backend.statistics(x)
    mine = torch.cat([mean.double(), var.double() * values, mean.new_full((1,), values).double()])
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, mine, group=group)
    # Sums of squares about each process's own mean, and not of raw values, which cancel.
    means, squares, counts = torch.stack(everyones).split([channels, channels, 1], dim=1)
    total = counts.sum()
    # Whoever has two values needs not ask a GPU, and wait for it, how many there are in all.
    if values <= 1 and total == 1:
        raise ValueError(
            'Expected more than 1 value per channel when training, got one over all processes'
        )
    joined = (means * counts).sum(0) / total
    squares = (squares + counts * (means - joined).square()).sum(0)
    return joined.to(mean.dtype), (squares / total).to(mean.dtype), total
