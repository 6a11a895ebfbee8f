"""What a back end computes, and which one computes for a feature map.

With `x_hat = (x - mean) * invstd`, the layer is `y = depthwise_kxk(x_hat) + bias`, zero padding on
`x_hat`, and at the end of a residual block `relu(y + residual)`. Names are torch's, as in its
`batch_norm_*` operators; `dy` is the gradient of `x_hat`.

A new back end is a module with the functions of `Backend`, and its name in `BACKENDS`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Protocol

from torch import Tensor

from bnet_mm.errors import InputError
from bnet_mm.kernels import cpu, eager


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

    def is_slower_than_torch(self, x: Tensor, k: int, dilation: int, normalized: bool) -> bool:
        """Tells whether norm and convolution by torch, one by one, are faster in inference.

        Args:
            x, k, dilation: what is convolved.
            normalized: whether x is x_hat: the convolution alone is compared.
        """

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

    def infer(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
        dilation: int,
        residual: Tensor | None = None,
        relu: bool = False,
    ) -> Tensor:
        """Returns the output for running statistics, of any floating type."""

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


# Modules beside this one. Triton's is imported when it is first chosen: importing Triton takes as
# long as importing all of this package.
BACKENDS = ('eager', 'cpu', 'triton')
_UNTRIED = (
    'the Triton kernels have not run on a GPU yet: bnet_mm.kernels.use("triton") or '
    'BNET_MM_KERNELS=triton turns them on'
)


class use:  # noqa: N801  (called as a function, and in a with statement)
    """Chooses the back end for all layers of this process; in a `with` statement, until its end.

    The environment variable `BNET_MM_KERNELS` chooses at the start. A feature map that the back end
    does not take is computed by `eager`, and `EnhancedNorm.computed_by` says why.

    Args:
        name: 'auto' (the compiled kernels on CPUs, else torch's own operators), 'eager', 'cpu' or
            'triton'.

    Raises:
        InputError: there is no back end of that name.

    Examples:
        >>> import torch
        >>> with use('eager'):
        ...     choose(torch.zeros(1, 4, 8, 8), 3, 1)[0].name
        "torch's operators"
    """

    chosen = 'auto'

    def __init__(self, name: str):
        if name not in ('auto', *BACKENDS):
            raise InputError(
                f'there is no back end {name!r}: take auto, {", ".join(BACKENDS)}, in '
                f'bnet_mm.kernels.use or BNET_MM_KERNELS'
            )
        self._before, use.chosen = use.chosen, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        use.chosen = self._before


def choose(x: Tensor, k: int, dilation: int) -> tuple[Backend, str | None]:
    """Returns the back end for feature maps like x, and why it is not the fastest one."""
    kind, chosen = x.device.type, use.chosen
    if chosen == 'eager':
        return eager, 'it was chosen'
    if chosen == 'auto':
        if kind == 'cuda':
            return eager, _UNTRIED
        if kind != 'cpu':
            return eager, f'there is no back end for {kind}'
        chosen = 'cpu'
    if chosen == 'cpu' and kind != 'cpu':
        return eager, f'the CPU kernels were chosen, and the input is on {kind}'
    backend: Backend = cpu if chosen == 'cpu' else import_module('bnet_mm.kernels.triton')
    reason = backend.unsupported(x, k, dilation)
    return (backend, None) if reason is None else (eager, reason)


use(os.environ.get('BNET_MM_KERNELS', 'auto'))
