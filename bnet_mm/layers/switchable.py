"""Switchable normalization, which learns how to mix three kinds of statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bnet_mm.errors import InputError
from bnet_mm.kernels.statistics import group_of, update_running_statistics
from bnet_mm.layers.plain import INNER, Inner, Owner, leaf


class SwitchNorm2d(Owner):
    """Switchable Normalization (SN) of Luo et al., arXiv 1806.10779, eq. 3 to 5.

    Mean and variance are each a mixture, with learnt softmax weights, of those of instance
    normalization (over the pixels of one channel of one sample), layer normalization (over one
    sample) and batch normalization (over one channel of the batch), in this order. All variances
    are the biased ones. In evaluation the first two are still the sample's own, and those of the
    batch are the running ones: a moving average, or, with `momentum=None`, the average over all
    batches since `reset_running_stats`. The SN paper takes the average over batches that are run
    through the trained network; mmpretrain's `PreciseBNHook` does that here as well.

    Its statistics of the batch are this process's own; SN over processes is not there.

    Args:
        num_features: channels C.
        eps: added to the variance.
        momentum: how far the running statistics move to those of a batch; None: see above.
        affine: whether there are a scale `weight` and a shift `bias`, `(C,)` each.
        _scope_: ignored; config inheritance leaves it there.

    Shape:
        input and output `(N, C, H, W)`; `mean_weight` and `var_weight`, before the softmax, `(3,)`.

    Examples:
        >>> SwitchNorm2d(64)(torch.randn(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    if TYPE_CHECKING:
        weight: nn.Parameter | None
        bias: nn.Parameter | None
    _abbr_ = 'sn'
    __jit_unused_properties__ = ['num_features', 'eps', 'momentum', 'affine']
    inner = 'batch'

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        device=None,
        dtype=None,
        _scope_: str | None = None,
    ):
        super().__init__()
        options = dict(device=device, dtype=dtype)
        # It is never called, and holds the running statistics: so `norm_eval`, frozen stages and
        # precise batch statistics, which look for batch norms, reach them.
        self.batch = nn.BatchNorm2d(num_features, eps, momentum, affine=False, **options)
        self.mean_weight = nn.Parameter(torch.empty(3, **options))
        self.var_weight = nn.Parameter(torch.empty(3, **options))
        for name in ('weight', 'bias'):
            value = nn.Parameter(torch.empty(num_features, **options)) if affine else None
            self.register_parameter(name, value)
        self.reset_parameters()

    @property
    def num_features(self) -> int:
        """Channels C."""
        return self.batch.num_features

    @property
    def eps(self) -> float:
        """What is added to the variance."""
        return self.batch.eps

    @property
    def momentum(self) -> float | None:
        """How far the running statistics move to those of a batch."""
        return self.batch.momentum

    @property
    def affine(self) -> bool:
        """Whether it has a scale and a shift."""
        return self.weight is not None

    def reset_parameters(self) -> None:
        """Weighs the three kinds alike, and makes scale 1, shift 0 and the statistics new."""
        self.batch.reset_running_stats()
        nn.init.ones_(self.mean_weight)
        nn.init.ones_(self.var_weight)
        if self.affine:
            assert self.weight is not None and self.bias is not None
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            assert not self.training, 'a scripted SN has no statistics of a batch'
            y = self._evaluated(input)
            weight, bias = self.weight, self.bias
            if weight is not None and bias is not None:
                y = y * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
            return y
        else:  # noqa: RET505  (torch.jit.script leaves out this branch, and only a branch)
            return self._forward(input)

    def _evaluated(self, input: Tensor) -> Tensor:
        # What a scripted norm computes, without scale and shift.
        running_mean, running_var = self.batch.running_mean, self.batch.running_var
        assert running_mean is not None and running_var is not None
        var_in, mean_in = torch.var_mean(input, [2, 3], correction=0, keepdim=True)
        mean_ln = mean_in.mean(1, keepdim=True)
        var_ln = var_in.mean(1, keepdim=True) + mean_in.var(1, unbiased=False, keepdim=True)
        of_mean, of_var = self.mean_weight.softmax(0), self.var_weight.softmax(0)
        mean_bn, var_bn = running_mean.view(1, -1, 1, 1), running_var.view(1, -1, 1, 1)
        mean = of_mean[0] * mean_in + of_mean[1] * mean_ln + of_mean[2] * mean_bn
        var = of_var[0] * var_in + of_var[1] * var_ln + of_var[2] * var_bn
        return (input - mean) * (var + self.batch.eps).rsqrt()

    def _forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            return leaf(self, input)
        if input.dim() != 4:
            raise InputError(
                f'SwitchNorm2d: expected a 4-D input (N, C, H, W), got {input.dim()}-D of shape '
                f'{tuple(input.shape)}'
            )
        if group_of(self.batch) is not None:
            raise InputError(
                'SN has no statistics over processes: leave sync_bn out of the config, and '
                'SyncBatchNorm out of this network'
            )
        if input.numel() == 0:
            return input.clone()
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        var_in, mean_in = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        # What holds for a whole holds for its parts: a variance is the mean of the parts' variances
        # plus the variance of their means. Differences of squares would cancel.
        var_ln = var_in.mean(1, keepdim=True) + mean_in.var(1, correction=0, keepdim=True)
        mean_ln = mean_in.mean(1, keepdim=True)
        if self.batch.training:
            var_bn = var_in.mean(0, keepdim=True) + mean_in.var(0, correction=0, keepdim=True)
            mean_bn = mean_in.mean(0, keepdim=True)
            # The biased variance, as the other two are.
            with torch.no_grad():
                update_running_statistics(self.batch, mean_bn.flatten(), var_bn.flatten())
        else:
            mean_bn = self.batch.running_mean.to(x.dtype).view(1, -1, 1, 1)
            var_bn = self.batch.running_var.to(x.dtype).view(1, -1, 1, 1)
        mean = _mixture(self.mean_weight, mean_in, mean_ln, mean_bn)
        var = _mixture(self.var_weight, var_in, var_ln, var_bn)
        y = (x - mean) * (var + self.eps).rsqrt()
        if self.affine:
            assert self.weight is not None and self.bias is not None
            scale, shift = self.weight.to(x.dtype), self.bias.to(x.dtype)
            y = y * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return y.to(input.dtype)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # A plain batch norm's statistics, and those of SN's authors, who have (1, C, 1) and for
        # scale and shift (1, C, 1, 1).
        for name in ('running_mean', 'running_var', 'num_batches_tracked'):
            if prefix + name in state_dict:
                state_dict[f'{prefix}batch.{name}'] = state_dict.pop(prefix + name)
        shaped = [f'{prefix}batch.{name}' for name in ('running_mean', 'running_var')]
        for key in (*shaped, f'{prefix}weight', f'{prefix}bias'):
            value = state_dict.get(key)
            if value is not None and value.ndim > 1 and value.numel() == self.num_features:
                state_dict[key] = value.flatten()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'{self.num_features}, eps={self.eps}, affine={self.affine}'


class InnerSwitchNorm2d(Inner, SwitchNorm2d):
    """`SwitchNorm2d` inside an `SNET`, without a scale and shift of its own."""

    __jit_unused_properties__ = [*SwitchNorm2d.__jit_unused_properties__, 'weight', 'bias']

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            assert not self.training, 'a scripted SNET has no statistics of a batch'
            return self._evaluated(input)
        else:  # noqa: RET505  (torch.jit.script leaves out this branch, and only a branch)
            return self._forward(input)

    @property
    def affine(self) -> bool:
        """False: what it shows as `weight` and `bias` is the layer's."""
        return False


INNER[SwitchNorm2d] = InnerSwitchNorm2d


def _mixture(weight: Tensor, *statistics: Tensor) -> Tensor:
    shares = weight.to(statistics[0].dtype).softmax(0)
    return sum(share * value for share, value in zip(shares, statistics))
