"""The layer's passes as operators that compilers keep as they are, `torch.ops.bnet_mm`.

Their gradients are those of `bnet_mm.kernels.operators`, whose passes they are. A compiler takes
their word for strides and for memory that nothing else refers to: whatever back end runs, a feature
map is laid out as `_empty_like` says, and each result has memory of its own. An operator chooses
the back end when it runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnet_mm.kernels.backend import choose
from bnet_mm.kernels.eager import acc_dtype, dense
from bnet_mm.kernels.versions import HAS_CUSTOM_OPERATORS


def _training(x, weight, bias, eps, dilation):
    backend, _ = choose(x, weight.shape[-1], dilation)
    y, mean, var, invstd = backend.forward_training(x, weight, bias, eps, dilation)
    return _laid_out(y, x), _apart(mean), _apart(var), _apart(invstd)


def _training_shapes(x, weight, bias, eps, dilation):
    sums = (x.new_empty(x.shape[1], dtype=acc_dtype(x)) for _ in range(3))
    return (_empty_like(x), *sums)


def _frozen(x, weight, bias, mean, invstd, dilation):
    backend, _ = choose(x, weight.shape[-1], dilation)
    return _laid_out(backend.forward(x, weight, bias, mean, invstd, dilation), x)


def _output_shape(x, *_):
    return _empty_like(x)


def _backward(grad_output, x, weight, mean, invstd, dilation, frozen):
    backend, _ = choose(x, weight.shape[-1], dilation)
    args = grad_output, x, weight, mean, invstd, dilation, frozen
    grad_x, grad_weight, grad_bias = backend.backward(*args)
    return _laid_out(grad_x, x), _apart(grad_weight), _apart(grad_bias)


def _backward_shapes(grad_output, x, weight, mean, invstd, dilation, frozen):
    sums = (t.new_empty(t.shape, dtype=acc_dtype(x)) for t in (weight, mean))
    return (_empty_like(x), *sums)


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty_like(dense(x))


def _laid_out(y: Tensor, x: Tensor) -> Tensor:
    memory_format = torch.contiguous_format if dense(x).is_contiguous() else torch.channels_last
    return y.contiguous(memory_format=memory_format)


def _apart(t: Tensor) -> Tensor:
    """Returns a small tensor, in memory of its own where it lay beside others."""
    return t if t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes else t.clone()


# Each with its shapes and its schema; annotations, which torch would read, are text here.
OPERATORS: dict[str, tuple[Any, Any, str]] = {
    'training': (
        _training,
        _training_shapes,
        '(Tensor x, Tensor weight, Tensor bias, float eps, int dilation)'
        ' -> (Tensor, Tensor, Tensor, Tensor)',
    ),
    'frozen': (
        _frozen,
        _output_shape,
        '(Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor invstd, int dilation)'
        ' -> Tensor',
    ),
    'backward': (
        _backward,
        _backward_shapes,
        '(Tensor grad_output, Tensor x, Tensor weight, Tensor mean, Tensor invstd, int dilation,'
        ' bool frozen) -> (Tensor, Tensor, Tensor)',
    ),
}

if HAS_CUSTOM_OPERATORS:
    for _name, (_function, _shapes, _schema) in OPERATORS.items():
        _operator = torch.library.custom_op(
            f'bnet_mm::{_name}', _function, mutates_args=(), schema=_schema
        )
        _operator.register_fake(_shapes)
