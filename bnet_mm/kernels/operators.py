"""The layer's passes as one autograd function.

For the backward pass the input, its statistics and the kernel are kept: what plain batch
normalization keeps, and the kernel. The back end is chosen in the forward pass and carried to the
backward pass. Compiled code calls `torch.ops.bnet_mm`, and an operator chooses when it runs; other
code goes around the dispatcher, whose Python side costs more than a small feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

import bnet_mm.kernels.compiled  # noqa: F401  (which compiled code calls)
from bnet_mm.kernels.backend import choose
from bnet_mm.kernels.versions import HAS_CUSTOM_OPERATORS, is_compiling, is_dynamo_compiling

_is_tracing = torch._C._is_tracing
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms = torch._C._are_functorch_transforms_active


def normalize_transform(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    eps: float,
    dilation: int,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Returns the layer's output, differentiable, and the statistics of the batch.

    Args:
        x: `(N, C, H, W)`.
        weight, bias: the kernel `(C, 1, k, k)` and its bias `(C,)`.
        statistics: mean and invstd, `(C,)` each, which are constants for the gradient; None for
            the batch's own.
        eps: added to the batch's variance.
        dilation: distance between neighbouring taps, in pixels.
        residual: None, or what is added before a ReLU ends the residual block, as x.

    Returns:
        output, mean and biased variance of the batch; the latter two None for given statistics.
    """
    mean, invstd = statistics if statistics is not None else (None, None)
    return _Layer.apply(x, weight, bias, mean, invstd, eps, dilation, residual)


def infer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    dilation: int,
    residual: Tensor | None = None,
) -> Tensor:
    """Returns the layer's output for running statistics, where no gradient is wanted.

    Nothing is kept: the way through autograd takes longer than a small feature map.

    Args:
        x: `(N, C, H, W)`.
        weight, bias: the kernel `(C, 1, k, k)` and its bias `(C,)`.
        mean, var: running statistics, `(C,)` each.
        eps: added to the variance.
        dilation: distance between neighbouring taps, in pixels.
        residual: None, or what is added before a ReLU ends the residual block, as x.
    """
    backend, _ = choose(x, weight.shape[-1], dilation)
    relu = residual is not None
    return backend.infer(x, weight, bias, mean, var, eps, dilation, residual, relu)


def transform(
    x: Tensor, weight: Tensor, bias: Tensor, dilation: int, residual: Tensor | None, relu: bool
) -> Tensor:
    """Returns `relu(depthwise_kxk(x) + bias + residual)`, for inference: it has no gradient."""
    backend, _ = choose(x, weight.shape[-1], dilation)
    return backend.forward(x, weight, bias, None, None, dilation, residual, relu)


def torch_is_faster(x: Tensor, k: int, dilation: int, normalized: bool = False) -> bool:
    """Tells whether torch's norm and convolution, one by one, are the faster way in inference.

    Args:
        x, k, dilation: what is convolved.
        normalized: whether x is normalized already, and only the convolution is left.
    """
    return choose(x, k, dilation)[0].is_slower_than_torch(x, k, dilation, normalized)


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Tells whether autograd records what is done with these."""
    if not torch.is_grad_enabled():
        return False
    for tensor in tensors:  # noqa: SIM110  (asked in every call, and a loop is the faster way)
        if tensor is not None and tensor.requires_grad:
            return True
    return False


def is_plain_call(*tensors: Tensor | None) -> bool:
    """Tells whether these operators may stand for torch's own: nobody looks at what runs.

    Tracers, exporters, dispatch modes (which count operations, say), torch.func's transforms,
    forward-mode differentiation and tensor subclasses want operators that they know.
    """
    # Asked in every call, so that each question is one look at what torch keeps.
    if is_dynamo_compiling():
        if not HAS_CUSTOM_OPERATORS:  # before what an old dynamo cannot trace
            return False
        # Not torch.compiler.is_exporting(), which dynamo takes for a constant, True.
        exporting = getattr(getattr(torch, 'compiler', None), '_is_exporting_flag', False)
        if exporting or torch._C._are_functorch_transforms_active():
            return False
    elif _is_tracing() or _dispatch_modes() or _transforms():
        return False
    if forward_ad._current_level >= 0:
        return False
    for tensor in tensors:
        if tensor is not None and type(tensor) is not Tensor and type(tensor) is not Parameter:
            return False
    return True


class _Layer(torch.autograd.Function):
    """The whole layer; no gradient flows into the statistics."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, invstd, eps, dilation, residual):
        frozen, relu, var = mean is not None, residual is not None, None
        if is_compiling():
            ctx.backend = None
            if frozen:
                y = torch.ops.bnet_mm.frozen(x, weight, bias, mean, invstd, dilation)
            else:
                y, mean, var, invstd = torch.ops.bnet_mm.training(x, weight, bias, eps, dilation)
            y = (y + residual).relu() if relu else y
        else:
            ctx.backend, _ = choose(x, weight.shape[-1], dilation)
            end = dilation, residual, relu
            if frozen:
                y = ctx.backend.forward(x, weight, bias, mean, invstd, *end)
            else:
                y, mean, var, invstd = ctx.backend.forward_training(x, weight, bias, eps, *end)
        ctx.dilation, ctx.frozen, ctx.bias_dtype = dilation, frozen, bias.dtype
        ctx.save_for_backward(x, weight, mean, invstd, y if relu else None)
        if frozen:
            return y, None, None
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx, grad_output, *_):
        x, weight, mean, invstd, y = ctx.saved_tensors
        if y is not None:
            grad_output = torch.ops.aten.threshold_backward(grad_output, y, 0)
        args = grad_output, x, weight, mean, invstd, ctx.dilation, ctx.frozen
        if is_compiling():
            gradients = torch.ops.bnet_mm.backward(*args)
        elif torch.is_grad_enabled():  # the gradients' own gradients are wanted
            gradients = _Gradients.apply(*args, ctx.backend)
        else:
            gradients = ctx.backend.backward(*args)
        grad_x, grad_weight, grad_bias = gradients
        grad_residual = grad_output if y is not None else None
        return (
            *(grad_x, grad_weight.to(weight.dtype), grad_bias.to(ctx.bias_dtype)),
            *(None, None, None, None, grad_residual),
        )


class _Gradients(torch.autograd.Function):
    """The backward pass; its own derivatives are torch's, of the layer in torch's operators."""

    @staticmethod
    def forward(ctx, grad_output, x, weight, mean, invstd, dilation, frozen, backend):
        ctx.dilation, ctx.frozen = dilation, frozen
        # invstd for the variance: what of eps is in it needs no name then.
        ctx.save_for_backward(grad_output, x, weight, mean, invstd)
        return backend.backward(grad_output, x, weight, mean, invstd, dilation, frozen)

    @staticmethod
    def backward(ctx, *grad_gradients):
        grad_output, x, weight, mean, invstd = ctx.saved_tensors
        with torch.enable_grad():
            grad_output, x, weight = (t.detach().requires_grad_() for t in (grad_output, x, weight))
            bias = torch.zeros_like(mean, requires_grad=True)
            y = _composed(x, weight, bias, mean, invstd, ctx.dilation, ctx.frozen)
            gradients = torch.autograd.grad(y, (x, weight, bias), grad_output, create_graph=True)
            second = torch.autograd.grad(
                gradients, (grad_output, x, weight), grad_gradients, allow_unused=True
            )
        return *second, None, None, None, None, None


def _composed(x, weight, bias, mean, invstd, dilation, frozen):
    mean, invstd = mean.view(1, -1, 1, 1), invstd.view(1, -1, 1, 1)
    if not frozen:
        eps = invstd.pow(-2) - x.detach().var((0, 2, 3), correction=0, keepdim=True)
        mean = x.mean((0, 2, 3), keepdim=True)
        invstd = ((x - mean).square().mean((0, 2, 3), keepdim=True) + eps).rsqrt()
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d((x - mean) * invstd, weight, bias, 1, padding, dilation, weight.shape[0])
