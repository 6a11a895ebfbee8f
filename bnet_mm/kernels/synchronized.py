"""Batch statistics over all processes, on a CPU too, where torch's SyncBatchNorm does not run.

One collective in the forward and one in the backward pass; shares of a batch may be of different
sizes, or empty.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnet_mm.kernels import operators

# Before anything can put another in its place.
_torch_forward = nn.SyncBatchNorm.forward


def synchronized_batch_norm(norm: nn.SyncBatchNorm, input: Tensor) -> Tensor:
    """Returns what `norm` computes, on a CPU too.

    On a CPU in training the statistics are those of the joined batch of all processes, which may be
    of different sizes or empty; one collective in the forward and one in the backward pass. On
    other devices, without processes and in evaluation mode it is torch's own forward.

    Args:
        norm: the layer, with or without scale and shift.
        input: `(N, C, ...)`.

    Raises:
        ValueError: all processes together have one value per channel.
    """
    if not (
        norm.training
        and input.device.type == 'cpu'
        and dist.is_available()
        and dist.is_initialized()
    ):
        return _torch_forward(norm, input)
    factor = norm.momentum
    if norm.track_running_stats:
        norm.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1.0 / norm.num_batches_tracked.item()
    running = (norm.running_mean, norm.running_var) if norm.track_running_stats else (None, None)
    group = group_of(norm)
    options = (norm.weight, norm.bias, *running, norm.eps, factor or 0.0)
    if group is None:
        weight, bias, mean, var, eps, factor = options
        return F.batch_norm(input, mean, var, weight, bias, True, factor, eps)
    return _SynchronizedBatchNorm.apply(input, *options, group)


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
        module, _ = operators.kernels(x, weight.shape[-1], dilation)
        mean, var, total = _joined(*_statistics(x, module.statistics), x, group)
        rstd = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, rstd, total)
        ctx.dilation, ctx.group, ctx.bias_dtype = dilation, group, bias.dtype
        ctx.mark_non_differentiable(mean, var, total)
        y = module.apply(x, weight, bias, mean, rstd, dilation) if x.numel() else x.clone()
        return y, mean, var, total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        x, weight, mean, rstd, total = ctx.saved_tensors
        module, _ = operators.kernels(x, weight.shape[-1], ctx.dilation)
        if x.numel():
            grad_weight, grad_bias, sum_of_grad = module.backward_reduce(
                grad, x, weight, mean, rstd, ctx.dilation
            )
        else:
            grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(mean)
            sum_of_grad = grad_bias
        # The sum of the normalized map's gradient times that map: the output is linear in both.
        product = (weight.to(mean.dtype) * grad_weight).sum((1, 2, 3))
        sums = torch.cat([sum_of_grad, product])
        dist.all_reduce(sums, group=ctx.group)
        means = (sums / total).to(mean.dtype).chunk(2)
        grad_x = x.clone()
        if x.numel():
            grad_x = module.backward_input(grad, x, weight, mean, rstd, *means, ctx.dilation)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(ctx.bias_dtype), None, None, None


def _statistics(x: Tensor, of_batch) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of this process's values, zeros where it has none."""
    if x.numel():
        return of_batch(x)
    return (x.new_zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32)),) * 2


def _joined(
    mean: Tensor, var: Tensor, x: Tensor, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean, biased variance and number of values per channel over all processes."""
    values = x.numel() // x.shape[1]
    mine = torch.cat([mean.double(), var.double() * values, mean.new_full((1,), values).double()])
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, mine, group=group)
    # Sums of squares about each process's own mean, and not of raw values, which cancel.
    means, squares, counts = torch.stack(everyones).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    # Whoever has two values needs not ask a GPU, and wait for it, how many there are in all.
    if values <= 1 and total == 1:
        raise ValueError(
            'Expected more than 1 value per channel when training, got one over all processes'
        )
    joined = (means * counts).sum(0) / total
    squares = (squares + counts * (means - joined).square()).sum(0)
    return joined.to(mean.dtype), (squares / total).to(mean.dtype), total


class _SynchronizedBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, eps, factor, group):
        x = x.contiguous()
        dims = [0, *range(2, x.dim())]
        precise = x.double() if x.dtype == torch.float64 else x.float()

        def of_batch(values):
            return torch.var_mean(values, dims, correction=0)[::-1]

        mean, var, total = _joined(*_statistics(precise, of_batch), x, group)
        rstd = (var + eps).rsqrt()
        if running_mean is not None and total:
            running_mean.lerp_(mean.to(running_mean), factor)
            running_var.lerp_((var * total / (total - 1)).to(running_var), factor)
        shape = (1, -1, *[1] * (x.dim() - 2))
        mean, rstd = (t.to(precise.dtype).view(shape) for t in (mean, rstd))
        ctx.save_for_backward(x, mean, rstd, weight)
        ctx.total, ctx.group, ctx.dims, ctx.shape = total.item(), group, dims, shape
        y = (precise - mean) * rstd
        if weight is not None:
            y = y * weight.view(shape) + bias.view(shape)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, mean, rstd, weight = ctx.saved_tensors
        grad = grad.to(mean.dtype)
        normalized = (x.to(mean.dtype) - mean) * rstd
        grad_bias, grad_weight = grad.sum(ctx.dims), (grad * normalized).sum(ctx.dims)
        sums = torch.cat([grad_bias, grad_weight])
        dist.all_reduce(sums, group=ctx.group)
        of_grad, of_product = (part.view(ctx.shape) / ctx.total for part in sums.chunk(2))
        grad_x = rstd * (grad - of_grad - normalized * of_product)
        if weight is None:
            return grad_x.to(x.dtype), None, None, *[None] * 5
        # One weight for all values of a channel, so that it stands before both sums as well.
        grad_x = grad_x * weight.view(ctx.shape)
        grads = (grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype))
        return *grads, *[None] * 5
