"""Batch statistics over all processes on a CPU, where torch's own SyncBatchNorm does not run."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
    group = norm.process_group or dist.group.WORLD
    options = (norm.weight, norm.bias, *running, norm.eps, factor or 0.0)
    if dist.get_world_size(group) == 1:
        weight, bias, mean, var, eps, factor = options
        return F.batch_norm(input, mean, var, weight, bias, True, factor, eps)
    return _SynchronizedBatchNorm.apply(input, *options, group)


class _SynchronizedBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, eps, factor, group):
        x = x.contiguous()
        dims = [0, *range(2, x.dim())]
        precise = x.double() if x.dtype == torch.float64 else x.float()
        values = x.numel() // x.shape[1]
        if values:
            var, mean = torch.var_mean(precise, dims, correction=0)
        else:
            var = mean = precise.new_zeros(x.shape[1])
        mine = torch.cat([mean.double(), var.double() * values, mean.new_tensor([values]).double()])
        everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
        dist.all_gather(everyones, mine, group=group)
        # Sums of squares about each process's own mean, and not of raw values, which cancel.
        means, squares, counts = torch.stack(everyones).split([len(mean), len(mean), 1], dim=1)
        total = counts.sum()
        if total == 1:
            raise ValueError(
                'Expected more than 1 value per channel when training, got one over all processes'
            )
        mean = (means * counts).sum(0) / total
        var = (squares + counts * (means - mean).square()).sum(0) / total
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
