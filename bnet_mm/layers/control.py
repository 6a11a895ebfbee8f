"""The control experiment of the paper's table 11: BN, ReLU and a depthwise convolution."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bnet_mm.layers.depthwise import check_kernel
from bnet_mm.layers.enhanced import check_not_placed


class BNControl(nn.Module):
    """Batch normalization, ReLU and a k x k depthwise convolution, in the place of a norm.

    Programs that go by names of classes find its norm and its convolution, and not the control
    itself: nothing in its name reads as a convolution's or a norm's.

    It costs what BNET costs, and a scale and a shift for each channel. Its convolution is an
    ordinary one: it starts as torch, or the network's own initialization, starts convolutions, and
    optimizers decay it as one.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        eps: added to the variance, as in `torch.nn.BatchNorm2d`.
        momentum: of the running statistics, as there.
        track_running_stats: whether there are running statistics, as there.
        positions: as in `BNET`.
        _scope_: ignored; config inheritance leaves it there.

    Shape:
        input and output `(N, C, H, W)`.

    Raises:
        InputError: as `BNET`'s.

    Examples:
        >>> from bnet_mm.layers import BNControl
        >>> [name for name, _ in BNControl(64, k=5).named_children()]
        ['norm', 'relu', 'conv']
    """

    _abbr_ = 'bn'

    def __init__(
        self,
        num_features: int,
        k: int = 3,
        dilation: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        track_running_stats: bool = True,
        positions: str | None = None,
        device=None,
        dtype=None,
        _scope_: str | None = None,
    ):
        super().__init__()
        k, dilation = check_kernel(k, dilation)
        check_not_placed('BNControl', positions)
        options = dict(device=device, dtype=dtype)
        self.norm = nn.BatchNorm2d(
            num_features, eps, momentum, track_running_stats=track_running_stats, **options
        )
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(
            num_features,
            num_features,
            k,
            padding=dilation * (k // 2),
            dilation=dilation,
            groups=num_features,
            **options,
        )

    @classmethod
    def from_norm(cls, norm: Any, k: int = 3, dilation: int = 1) -> BNControl:
        """Returns the control around an existing batch norm, which becomes its child."""
        where = dict(device=norm.weight.device, dtype=norm.weight.dtype)
        control = cls(norm.num_features, k, dilation, **where)
        control.norm = norm
        return control.train(norm.training)

    def zero_output(self) -> None:
        """Makes the convolution 0, as `zero_init_residual` makes the scale of a block's last norm.

        The norm's own scale is 1: were both 0, neither would ever get a gradient.
        """
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, input: Tensor) -> Tensor:
        return self.conv(self.relu(self.norm(input)))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # A plain batch norm's tensors; the convolution then stays as it is.
        for name in self.norm.state_dict():
            if prefix + name in state_dict:
                state_dict[f'{prefix}norm.{name}'] = state_dict.pop(prefix + name)
        super()._load_from_state_dict(state_dict, prefix, *args)
