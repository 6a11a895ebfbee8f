"""What a back end computes, and which one computes for a feature map.

With `x_hat = (x - mean) * invstd`, the layer is `y = depthwise_kxk(x_hat) + bias`, zero padding on
`x_hat`, and at the end of a residual block `relu(y + residual)`. Names are torch's, as in its
`batch_norm_*` operators; `dy` is the gradient of `x_hat`.

A new back end is a module with the functions of `Backend`, and a line in `choose`.
"""

from typing import Protocol

from torch import Tensor

from bnet_mm.kernels import cpu, eager, triton


class Backend(Protocol):
    """The passes over a feature map.

    Shape:
        x, residual, grad_output: `(N, C, H, W)`, of one type; what is returned of that shape has
        the type and memory format of x. weight: `(C, 1, k, k)`, k odd. All others: `(C,)`, in the
        accumulate type (`acc_dtype`) where they are returned.
    """

    name: str

    def unsupported(self, x: Tensor, k: int, dilation: int) -> str | None:
        """Returns the fallback reason for feature maps like x, as a clause, or None."""

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and biased variance of each channel."""

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor | None,
        invstd: Tensor | None,
        dilation: int,
        residual: Tensor | None = None,
        relu: bool = False,
    ) -> Tensor:
        """Returns the output for given statistics; mean and invstd None take x for x_hat."""

    def forward_training(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        dilation: int,
        residual: Tensor | None = None,
        relu: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the output for the batch's own statistics; mean, biased variance and invstd."""

    def backward(
        self,
        grad_output: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        invstd: Tensor,
        dilation: int,
        frozen: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of x, weight and bias; frozen statistics are constants."""

    def backward_reduce(
        self,
        grad_output: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        invstd: Tensor,
        dilation: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the gradients of weight and bias, and the sum of dy over each channel.

        The other sum that batch statistics need, of `dy * x_hat`, is
        `(weight * grad_weight).sum((1, 2, 3))`: the output is linear in both.
        """

    def backward_input(
        self,
        grad_output: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        invstd: Tensor,
        mean_dy: Tensor | None,
        mean_dy_xmu: Tensor | None,
        dilation: int,
    ) -> Tensor:
        """Returns the gradient of x, `invstd * (dy - mean_dy - x_hat * mean_dy_xmu)`.

        Args:
            grad_output, x, weight, mean, invstd, dilation: as in `backward`.
            mean_dy, mean_dy_xmu: means over each channel of dy and of `dy * x_hat` (torch's
                `mean_dy_xmu`, normalized); both None for frozen statistics.
        """


def choose(x: Tensor, k: int, dilation: int) -> tuple[Backend, str | None]:
    """Returns the fastest back end for feature maps like x, and why it is not a faster one."""
    fastest = {'cpu': cpu, 'cuda': triton}.get(x.device.type)
    if fastest is None:
        return eager, f'there is no back end for {x.device.type}'
    reason = fastest.unsupported(x, k, dilation)
    return (fastest, None) if reason is None else (eager, reason)
