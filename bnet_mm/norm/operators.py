"""The layer's arithmetic as torch operators (`torch.ops.bnet_mm`), over the fastest kernels.

Each operator asks `kernels` who computes: compiled code on a CPU, Triton on a GPU, torch's own
operators elsewhere. They know their gradients and their shapes, so that autograd and
`torch.compile` see one step and not what is inside. For the backward pass they keep the input, the
statistics and the kernel: what plain batch normalization keeps, and the kernel.

Maps are `(N, C, H, W)`, kernels `(C, 1, k, k)`, everything else `(C,)`.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from bnet_mm.norm import cpu, plain


def kernels(x: Tensor, k: int, dilation: int) -> tuple[ModuleType, str | None]:
    """Returns who computes for maps like `x`, and why it is not a faster one, or None."""
    if x.device.type == 'cpu':
        reason = cpu.unsupported(x, k, dilation)
        return (plain, reason) if reason else (cpu, None)
    return plain, f'there are no kernels for {x.device.type}'


@torch.library.custom_op('bnet_mm::training', mutates_args=())
def training(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the output with the batch's statistics, and these: mean, biased variance, rstd.

    No gradient flows into the statistics.
    """
    module, _ = kernels(x, weight.shape[-1], dilation)
    return module.training(x, weight, bias, eps, dilation)


@torch.library.custom_op('bnet_mm::frozen', mutates_args=())
def frozen(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, dilation: int
) -> Tensor:
    """Returns the output with given statistics, which are constants for the gradient."""
    module, _ = kernels(x, weight.shape[-1], dilation)
    return module.apply(x, weight, bias, mean, rstd, dilation)


@torch.library.custom_op('bnet_mm::backward', mutates_args=())
def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    dilation: int,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of input, kernel and bias, of `training` or of `frozen`."""
    module, _ = kernels(x, weight.shape[-1], dilation)
    return module.backward(grad, x, weight, mean, rstd, dilation, frozen)


@training.register_fake
def _(x, weight, bias, eps, dilation):
    statistics = [x.new_empty(x.shape[1], dtype=cpu.computing_type(x)) for _ in range(3)]
    return torch.empty_like(x), *statistics


@frozen.register_fake
def _(x, weight, bias, mean, rstd, dilation):
    return torch.empty_like(x)


@backward.register_fake
def _(grad, x, weight, mean, rstd, dilation, frozen):
    dtype = cpu.computing_type(x)
    return (
        torch.empty_like(x),
        weight.new_empty(weight.shape, dtype=dtype),
        mean.new_empty(mean.shape, dtype=dtype),
    )


def _save_training(ctx, inputs, output):
    x, weight, bias, _, ctx.dilation = inputs
    _, mean, _, rstd = output
    ctx.save_for_backward(x, weight, mean, rstd)
    ctx.bias_dtype = bias.dtype


def _training_backward(ctx, grad, *_):
    x, weight, mean, rstd = ctx.saved_tensors
    grads = torch.ops.bnet_mm.backward(grad, x, weight, mean, rstd, ctx.dilation, False)
    return grads[0], grads[1].to(weight.dtype), grads[2].to(ctx.bias_dtype), None, None


def _save_frozen(ctx, inputs, output):
    x, weight, bias, mean, rstd, ctx.dilation = inputs
    ctx.save_for_backward(x, weight, mean, rstd)
    ctx.bias_dtype = bias.dtype


def _frozen_backward(ctx, grad):
    x, weight, mean, rstd = ctx.saved_tensors
    grads = torch.ops.bnet_mm.backward(grad, x, weight, mean, rstd, ctx.dilation, True)
    return grads[0], grads[1].to(weight.dtype), grads[2].to(ctx.bias_dtype), None, None, None


training.register_autograd(_training_backward, setup_context=_save_training)
frozen.register_autograd(_frozen_backward, setup_context=_save_frozen)


def _save_backward(ctx, inputs, output):
    grad, x, weight, mean, rstd, ctx.dilation, ctx.frozen = inputs
    # rstd for the variance: what of eps is in it needs no name then.
    ctx.save_for_backward(grad, x, weight, mean, rstd)


def _backward_backward(ctx, *of_gradients):
    """Second derivatives: torch's own, of the layer written down in torch's operators."""
    grad, x, weight, mean, rstd = ctx.saved_tensors
    with torch.enable_grad():
        grad, x, weight = (t.detach().requires_grad_() for t in (grad, x, weight))
        bias = torch.zeros_like(mean, requires_grad=True)
        y = _composed(x, weight, bias, mean, rstd, ctx.dilation, ctx.frozen)
        gradients = torch.autograd.grad(y, (x, weight, bias), grad, create_graph=True)
        second = torch.autograd.grad(gradients, (grad, x, weight), of_gradients, allow_unused=True)
    return *second, None, None, None, None


backward.register_autograd(_backward_backward, setup_context=_save_backward)


def _composed(x, weight, bias, mean, rstd, dilation, frozen):
    mean, rstd = mean.view(1, -1, 1, 1), rstd.view(1, -1, 1, 1)
    if not frozen:
        eps = rstd.pow(-2) - x.detach().var((0, 2, 3), correction=0, keepdim=True)
        mean = x.mean((0, 2, 3), keepdim=True)
        rstd = ((x - mean).square().mean((0, 2, 3), keepdim=True) + eps).rsqrt()
    padding = dilation * (weight.shape[-1] // 2)
    normalized = (x - mean) * rstd
    return F.conv2d(normalized, weight, bias, 1, padding, dilation, weight.shape[0])
