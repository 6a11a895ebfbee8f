"""The layer's arithmetic as torch operators (`torch.ops.bnet_mm`), over the fastest kernels.

Each operator asks `kernels` who computes: compiled code on a CPU, Triton on a GPU, torch's own
operators elsewhere. They know their gradients and their shapes, so that autograd and
`torch.compile` see one step and not what is inside. For the backward pass they keep the input, the
statistics and the kernel: what plain batch normalization keeps, and the kernel.

Uncompiled code goes around the dispatcher, whose Python side costs more than a small map.

Maps are `(N, C, H, W)`, kernels `(C, 1, k, k)`, everything else `(C,)`.
"""

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from bnet_mm.kernels import cpu, eager, triton_kernels


def kernels(x: Tensor, k: int, dilation: int) -> tuple[ModuleType, str | None]:
    """Returns who computes for maps like `x`, and why it is not a faster one, or None."""
    if x.device.type == 'cpu':
        reason = cpu.unsupported(x, k, dilation)
        return (eager, reason) if reason else (cpu, None)
    if x.device.type == 'cuda':
        reason = triton_kernels.unsupported(x, k, dilation)
        return (eager, reason) if reason else (triton_kernels, None)
    return eager, f'there are no kernels for {x.device.type}'


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


@torch.library.custom_op('bnet_mm::transform', mutates_args=())
def transform(
    x: Tensor, weight: Tensor, bias: Tensor, dilation: int, residual: Tensor | None, relu: bool
) -> Tensor:
    """Returns `relu(dw(x) + bias + residual)`, for inference: it has no gradient."""
    module, _ = kernels(x, weight.shape[-1], dilation)
    return module.apply(x, weight, bias, None, None, dilation, residual, relu)


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


@transform.register_fake
def _(x, weight, bias, dilation, residual, relu):
    return torch.empty_like(x)


def _save(ctx, x, weight, bias, mean, rstd, dilation, *end):
    ctx.save_for_backward(x, weight, mean, rstd, *end)
    ctx.dilation, ctx.bias_dtype = dilation, bias.dtype


def _save_training(ctx, inputs, output):
    x, weight, bias, _, dilation = inputs
    _, mean, var, rstd = output
    ctx.mark_non_differentiable(mean, var, rstd)
    _save(ctx, x, weight, bias, mean, rstd, dilation)


def _save_frozen(ctx, inputs, output):
    _save(ctx, *inputs)


def _gradients(ctx, grad, frozen, direct=False):
    x, weight, mean, rstd = ctx.saved_tensors[:4]
    run = torch.ops.bnet_mm.backward
    if direct and not torch.is_grad_enabled():  # enabled: the gradients' own gradients are wanted
        run = kernels(x, weight.shape[-1], ctx.dilation)[0].backward
    grad_x, grad_weight, grad_bias = run(grad, x, weight, mean, rstd, ctx.dilation, frozen)
    return grad_x, grad_weight.to(weight.dtype), grad_bias.to(ctx.bias_dtype)


def _training_backward(ctx, grad, *_):
    return *_gradients(ctx, grad, False), None, None


def _frozen_backward(ctx, grad):
    return *_gradients(ctx, grad, True), None, None, None


training.register_autograd(_training_backward, setup_context=_save_training)
frozen.register_autograd(_frozen_backward, setup_context=_save_frozen)


class _Training(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, bias, eps, dilation, residual):
        module, _ = kernels(x, weight.shape[-1], dilation)
        return module.training(x, weight, bias, eps, dilation, residual, residual is not None)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, _, dilation, residual = inputs
        y, mean, var, rstd = output
        ctx.mark_non_differentiable(mean, var, rstd)
        _save(ctx, x, weight, bias, mean, rstd, dilation, *_end(ctx, residual, y))

    @staticmethod
    def backward(ctx, grad, *_):
        grad = _before_end(ctx, grad)
        return *_gradients(ctx, grad, False, direct=True), None, None, grad if ctx.end else None


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, bias, mean, rstd, dilation, residual):
        module, _ = kernels(x, weight.shape[-1], dilation)
        return module.apply(x, weight, bias, mean, rstd, dilation, residual, residual is not None)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *inputs, residual = inputs
        _save(ctx, *inputs, *_end(ctx, residual, output))

    @staticmethod
    def backward(ctx, grad):
        grad = _before_end(ctx, grad)
        gradients = _gradients(ctx, grad, True, direct=True)
        return *gradients, None, None, None, grad if ctx.end else None


def _end(ctx, residual, output):
    """Returns what the end of a block keeps: the output of its ReLU, as torch's own does."""
    ctx.end = residual is not None
    return (output,) if ctx.end else ()


def _before_end(ctx, grad):
    """Returns the gradient of the sum under the ReLU: the residual's, and the transform's."""
    return torch.ops.aten.threshold_backward(grad, ctx.saved_tensors[-1], 0) if ctx.end else grad


def transform_training(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dilation: int,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns what the operator `training` does; with a residual, the ReLU of their sum."""
    if not torch.compiler.is_compiling():
        return _Training.apply(x, weight, bias, eps, dilation, residual)
    y, *statistics = torch.ops.bnet_mm.training(x, weight, bias, eps, dilation)
    return y if residual is None else (y + residual).relu(), *statistics


def transform_frozen(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    dilation: int,
    residual: Tensor | None = None,
) -> Tensor:
    """Returns what the operator `frozen` does; with a residual, the ReLU of their sum."""
    if not torch.compiler.is_compiling():
        return _Frozen.apply(x, weight, bias, mean, rstd, dilation, residual)
    y = torch.ops.bnet_mm.frozen(x, weight, bias, mean, rstd, dilation)
    return y if residual is None else (y + residual).relu()


def transform_inference(
    x: Tensor, weight: Tensor, bias: Tensor, dilation: int, residual: Tensor | None, relu: bool
) -> Tensor:
    """Returns what the operator `transform` does."""
    if torch.compiler.is_compiling():
        return torch.ops.bnet_mm.transform(x, weight, bias, dilation, residual, relu)
    module, _ = kernels(x, weight.shape[-1], dilation)
    return module.apply(x, weight, bias, None, None, dilation, residual, relu)


def is_plain_call(*tensors: Tensor | None) -> bool:
    """Tells whether the operators may stand for torch's own: nobody is looking at what runs.

    Tracers, exporters, dispatch modes (which count operations, say), torch.func's transforms,
    forward-mode differentiation and tensor subclasses want operators that they know.
    """
    # Not torch.compiler.is_exporting(), which dynamo takes for a constant, True.
    exporting = getattr(torch.compiler, '_is_exporting_flag', False) or (
        torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    )
    watched = not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0
    return (
        not (torch.jit.is_tracing() or exporting or watched)
        and all(t is None or type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


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
