"""Binary activations and weights of Bi-Real Net (Liu et al., ECCV 2018), and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# How many binary multiply-accumulates make one FLOP: as many as fit into a word (Bi-Real Net and
# XNOR-Net count so).
BINARY_OPERATIONS_PER_FLOP = 64


class BinaryActivation(nn.Module):
    """The sign of each value, with the gradient of a piecewise quadratic step (ApproxSign).

    Forward: -1 where the input is negative, else 1. Backward: the derivative of ApproxSign, which
    is `2 + 2a` for `-1 <= a < 0`, `2 - 2a` for `0 <= a < 1` and 0 elsewhere (Bi-Real Net, eq. 5).

    Shape:
        input and output alike.
    """

    def forward(self, input: Tensor) -> Tensor:
        return _ApproxSign.apply(input)


class BinaryConv2d(nn.Conv2d):
    """A convolution with binary weights and, for training, real ones behind them.

    Filter c computes with `s_c * sign(W_c)`, where `s_c` is the mean magnitude of its weights. The
    gradient of the real weights is magnitude-aware: `s_c` times the binary weights' own, and 0
    where a weight is not between -1 and 1 (Bi-Real Net, eq. 7). The authors' PyTorch code leaves
    the factor `s_c` out of the gradient, which Adam makes no difference of.

    Arguments and shapes are those of `torch.nn.Conv2d`; no bias, until a norm is folded in.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        device=None,
        dtype=None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            bias=False,
            device=device,
            dtype=dtype,
        )

    def binary_weight(self) -> Tensor:
        """Returns the weights it computes with, `(out, in, k, k)`."""
        return _MagnitudeAwareSign.apply(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.binary_weight(), self.bias)


class _ApproxSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return _sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (2 - 2 * x.abs()).clamp(min=0)


class _MagnitudeAwareSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        scale = weight.abs().mean((1, 2, 3), keepdim=True)
        ctx.save_for_backward(weight, scale)
        return scale * _sign(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, scale = ctx.saved_tensors
        return grad * scale * (weight.abs() < 1)


def _sign(x: Tensor) -> Tensor:
    # torch.sign() has a third value, 0.
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)
