"""Any norm with its scale and shift replaced by a depthwise convolution."""

from torch import Tensor, nn

from bnet_mm.errors import InputError
from bnet_mm.kernels import operators
from bnet_mm.kernels.synchronized import group_of, synchronized_batch_norm
from bnet_mm.layers.depthwise import DepthwiseTransform, dirac_kernel
from bnet_mm.layers.fused import fused_forward, why_composed


def refuse_positions(layer: str, positions: str | None) -> None:
    """Checks that nobody expects the layer `layer` to place itself.

    Raises:
        InputError: `positions` came from a network that does not take it out of `norm_cfg`, so
            that the network would silently differ from what was asked for.
    """
    if positions not in (None, 'all'):
        raise InputError(
            f'{layer}: positions={positions!r} was given to a network that does not place norms. '
            f'Leave positions out of this norm_cfg to enhance every norm it builds, or build '
            f"the network with the plain norm and call bnet_mm.enhance(model, k, positions='...')"
        )


class EnhancedNorm(nn.Module):
    """`y = depthwise_kxk(norm(x)) + bias`, zero padding on the normalized map (paper, eq. 5).

    Composition keeps it whole. A subclass of torch's `_BatchNorm` is rebuilt as a bare norm by
    `convert_sync_batchnorm` and `revert_sync_batchnorm`, which never look at its kernel again; here
    they convert the child `norm` and leave `dw` alone. No parameter of the layer itself is called
    `weight`: OpenMMLab's initializers fill a norm's `weight` with ones.

    A state dict of the plain norm (`weight`, `bias` and the statistics) loads into it, strictly,
    and the outputs do not change: the scale goes to the centre tap, the shift to the bias.

    Args:
        norm: the normalization, without scale and shift of its own (`affine=False`).
        num_features: channels C.
        k: kernel size, odd; 1 is the plain affine norm.
        dilation: distance between neighbouring taps, in pixels.

    Shape:
        input and output `(N, C, H, W)`.
    """

    # mmcv names a block's norms after this: bn1, bn2, bn3, as plain batch normalization's.
    _abbr_ = 'bn'

    def __init__(
        self,
        norm: nn.Module,
        num_features: int,
        k: int,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        self.norm = norm
        self.dw = DepthwiseTransform(num_features, k, dilation, device=device, dtype=dtype)

    @property
    def num_features(self) -> int:
        """Channels C."""
        return self.dw.in_channels

    @property
    def k(self) -> int:
        """Kernel size."""
        return self.dw.kernel_size[0]

    @property
    def dilation(self) -> int:
        """Distance between neighbouring taps, in pixels."""
        return self.dw.dilation[0]

    def reset_parameters(self) -> None:
        """Resets the statistics as the norm does, the kernel to Dirac and the bias to 0."""
        self.norm.reset_parameters()
        self.dw.reset_parameters()

    def zero_output(self) -> None:
        """Makes kernel and bias 0, as `zero_init_residual` makes the scale of a block's last norm.

        The kernel still gets a gradient, and the block learns from the first step.
        """
        nn.init.zeros_(self.dw.weight)
        nn.init.zeros_(self.dw.bias)

    def forward(self, input: Tensor) -> Tensor:
        # The norm's own check is gone once a library has converted it to synchronized statistics
        # and back, and a convolution would read a (C, H, W) map as an unbatched image.
        # Not asked of torch.fx's stand-ins for an input.
        if isinstance(input, Tensor) and input.dim() != 4:
            kind = {5: '; 3-D networks (I3D and its like) keep their own norm'}
            raise InputError(
                f'{type(self).__name__}: expected a 4-D input (N, C, H, W), got {input.dim()}-D of '
                f'shape {tuple(input.shape)}{kind.get(input.dim(), "")}'
            )
        if why_composed(self, input) is None:
            return fused_forward(self.norm, self.dw, input)
        synchronized = isinstance(self.norm, nn.SyncBatchNorm)
        return self.dw(
            synchronized_batch_norm(self.norm, input) if synchronized else self.norm(input)
        )

    def end_of_block(self, input: Tensor, residual: Tensor) -> Tensor:
        """Returns `relu(self(input) + residual)`, in one pass over the map where that can be.

        Args:
            input: `(N, C, H, W)`.
            residual: the block's other branch, of the same size.
        """
        hooks = self._forward_hooks or self._forward_pre_hooks or self._backward_hooks
        alike = residual.shape == input.shape and residual.dtype == input.dtype
        if (
            hooks
            or not alike
            or input.dim() != 4
            or not operators.is_plain_call(residual)
            or why_composed(self, input) is not None
            or group_of(self.norm) is not None
        ):
            return (self(input) + residual).relu()
        return fused_forward(self.norm, self.dw, input, residual)

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Adds a child; this is how conversions put another norm in the place of `norm`.

        Raises:
            InputError: that norm is mmcv's synchronized one, which cannot do without a scale and
                shift of its own.
        """
        if name == 'norm' and type(module).__module__ == 'mmcv.ops.sync_bn':
            raise InputError(
                "BNET cannot use mmcv's own SyncBatchNorm (sync_bn='mmcv'): say sync_bn='torch', "
                "or norm_cfg=dict(type='SyncBNET', ...)"
            )
        super().add_module(name, module)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # By keys and shapes, not by `_version`: checkpoint loaders drop the metadata.
        of_norm = ('running_mean', 'running_var', 'num_batches_tracked', *self.norm.state_dict())
        renamed = {
            **{name: f'norm.{name}' for name in of_norm},
            'weight': 'dw.weight',
            'bias': 'dw.bias',
            'bnconv.weight': 'dw.weight',  # the paper's authors' name of the kernel
            'bnconv.bias': 'dw.bias',
        }
        for theirs, ours in renamed.items():
            if prefix + theirs in state_dict:
                value = state_dict.pop(prefix + theirs)
                if theirs == 'weight' and value.ndim == 1:
                    value = dirac_kernel(value, self.k)
                state_dict[prefix + ours] = value
        super()._load_from_state_dict(state_dict, prefix, *args)
