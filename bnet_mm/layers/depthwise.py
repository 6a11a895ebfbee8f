"""The k x k depthwise convolution that takes the place of a norm's scale and shift."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from bnet_mm.errors import InputError
from bnet_mm.kernels.operators import is_plain_call, torch_is_faster, transform, wants_gradient
from bnet_mm.kernels.versions import is_autocast_enabled, is_compiling


def check_kernel(k: object, dilation: object = 1) -> tuple[int, int]:
    """Returns `k` and `dilation` as ints, or says which of the two cannot be a kernel and why.

    Raises:
        InputError: `k` is not a positive odd integer, or `dilation` is not a positive integer.
    """

    def integer(value: Any) -> int | None:
        if isinstance(value, bool):
            return None
        try:
            return operator.index(value)
        except TypeError:
            return None

    size, spread = integer(k), integer(dilation)
    if size is None or size < 1 or size % 2 == 0:
        raise InputError(
            f'BNET: k must be a positive odd integer (1, 3, 5, 7, ...), so that the kernel has a '
            f'centre; got k={k!r}'
        )
    if spread is None or spread < 1:
        raise InputError(f'BNET: dilation must be a positive integer, got dilation={dilation!r}')
    return size, spread


class DepthwiseTransform(_ConvNd):
    """A k x k depthwise convolution with bias that starts as the identity (paper, section 3.2).

    Its base is torch's `_ConvNd` and not `nn.Conv2d`, on purpose: initializers that are asked for
    `layer='Conv2d'` go by a module's class and its direct bases, and would replace the kernel by
    random numbers.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.

    Shape:
        weight `(C, 1, k, k)`, bias `(C,)`; input and output `(N, C, H, W)`.

    Examples:
        >>> x = torch.randn(2, 8, 16, 16)
        >>> torch.equal(DepthwiseTransform(8, k=3)(x), x)
        True
    """

    if TYPE_CHECKING:
        bias: nn.Parameter

    def __init__(self, num_features: int, k: int, dilation: int = 1, device=None, dtype=None):
        k, dilation = check_kernel(k, dilation)
        super().__init__(
            in_channels=num_features,
            out_channels=num_features,
            kernel_size=(k, k),
            stride=(1, 1),
            padding=(dilation * (k // 2),) * 2,
            dilation=(dilation, dilation),
            transposed=False,
            output_padding=(0, 0),
            groups=num_features,
            bias=True,
            padding_mode='zeros',
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        """Makes the kernel a Dirac impulse (centre 1, else 0) and the bias 0: plain BN's start."""
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2] = 1
            self.bias.zero_()

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.conv2d(
                input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
            )
        else:  # noqa: RET505  (torch.jit.script leaves out this branch, and only a branch)
            return self._forward(input)

    def end_of_block(self, input: Tensor, residual: Tensor) -> Tensor:
        """Returns `relu(conv(input) + bias + residual)`, in one pass where a back end takes it."""
        return self._forward(input, residual, relu=True)

    def _forward(self, input: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        if torch.jit.is_tracing() or not isinstance(input, Tensor):  # by torch.fx
            # With the module's own numbers: tracers take for variables what is computed of shapes.
            output = F.conv2d(
                input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
            )
        elif input.numel() == 0 and 0 in input.shape[2:]:
            # torch's convolution refuses maps without pixels, which a scale and shift lets through.
            output = input + 0 * (self.weight.sum() + self.bias.sum())
        else:
            return depthwise_transform(
                input, self.weight, self.bias, self.dilation[0], residual, relu
            )
        return _ended(output, residual, relu)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        dilation = self.dilation[0]
        if self.kernel_size == (1, 1):
            return
        if dilation != 1:
            destination[prefix + 'dilation'] = self.weight.new_tensor(dilation, dtype=torch.int64)
        if hasattr(destination, '_metadata'):  # which is there for BN's names alone, too
            destination._metadata.setdefault(prefix[:-1], {})['dilation'] = dilation

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        weight = state_dict.get(prefix + 'weight')
        if weight is not None and weight.ndim == 4 and weight.shape[2:] != self.weight.shape[2:]:
            theirs, ours = 'x'.join(map(str, weight.shape[2:])), self.kernel_size[0]
            # Loaders that are not strict only print this; a key left in place would be reported
            # a second time by torch, as a bare pair of shapes.
            error_msgs.append(
                f'the checkpoint has {theirs} kernels, the model k={ours}, at {prefix}weight: '
                f'kernel and bias were left as they were'
            )
            return
        said = said_dilation(state_dict.pop(prefix + 'dilation', None), local_metadata)
        if weight is not None and weight.ndim == 4 and self.kernel_size != (1, 1):
            ours = self.dilation[0]
            if said is None and ours != 1 and not is_dirac(weight):
                warnings.warn(
                    f'BNET: a checkpoint does not say the dilation of its kernels; it is taken for '
                    f"this network's, {ours}",
                    stacklevel=2,
                )
            elif said not in (None, ours):
                error_msgs.append(
                    f'the checkpoint has kernels of dilation {said}, the model of dilation {ours}, '
                    f'at {prefix}weight: kernel and bias were left as they were'
                )
                return
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )


def said_dilation(value: Tensor | None, metadata: Mapping) -> int | str | None:
    """Returns the dilation that a checkpoint gives for a kernel, or None if it says nothing.

    Files of before there was a dilation in them say nothing. A kernel that is dilated has a tensor
    `dw.dilation` beside it, which every format keeps; one that is not is marked in the metadata of
    a state dict, and has no name that plain batch normalization has not.

    Args:
        value: the tensor, or None.
        metadata: of the kernel's module (`_metadata` of a state dict).

    Returns:
        The number; a few words for something else that stands in its place.
    """
    if value is None:
        return metadata.get('dilation')
    if not isinstance(value, Tensor) or value.shape != () or value.is_floating_point():
        return 'not a number'
    return int(value)


def depthwise_transform(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    dilation: int = 1,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Returns `conv(input) + bias`, then `+ residual`, then its ReLU; size and memory format kept.

    What remains of BNET and the end of its block in a deployed network.

    Args:
        input: `(N, C, H, W)`.
        weight: `(C, 1, k, k)`, k odd; zero padding of `dilation * (k // 2)` pixels.
        bias: `(C,)`.
        dilation: distance between neighbouring taps, in pixels.
        residual: what is added before the ReLU, `(N, C, H, W)`.
        relu: whether to end with a ReLU.
    """
    if _for_back_end(input, weight, bias, dilation, residual):
        return transform(input, weight, bias, dilation, residual, relu)
    padding = dilation * (weight.shape[-1] // 2)
    return _ended(
        F.conv2d(input, weight, bias, 1, padding, dilation, weight.shape[0]), residual, relu
    )


def _ended(output: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    if residual is not None:
        output = output + residual
    return output.relu() if relu else output


def _for_back_end(
    input: Tensor, weight: Tensor, bias: Tensor, dilation: int, residual: Tensor | None
) -> bool:
    """Tells whether a back end takes these; torch's own operators say what is wrong."""
    tensors = [t for t in (input, weight, bias, residual) if t is not None]
    c, k = weight.shape[0], weight.shape[-1]
    return (
        not is_compiling()  # torch's convolution, which a compiler fuses with what is around it
        and is_plain_call(*tensors)
        and not wants_gradient(*tensors)
        and not is_autocast_enabled(input.device.type)
        and all((t.dtype, t.device) == (input.dtype, input.device) for t in tensors)
        and input.is_floating_point()
        and input.dim() == 4
        and input.numel() > 0
        and (input.shape[1], weight.shape, bias.shape) == (c, (c, 1, k, k), (c,))
        and k % 2 == 1
        and (residual is None or residual.shape == input.shape)
        and not (residual is None and torch_is_faster(input, k, dilation, normalized=True))
    )


def is_dirac(kernel: Tensor) -> bool:
    """Tells whether only the centre taps of a `(C, 1, k, k)` kernel are not zero."""
    centre = kernel.shape[-1] // 2
    return bool(kernel.count_nonzero() == kernel[:, :, centre, centre].count_nonzero())


def dirac_kernel(scale: Tensor, k: int) -> Tensor:
    """Returns the `(C, 1, k, k)` kernel that multiplies channel c by `scale[c]`.

    That is what an affine norm with `weight=scale` does; `scale` is `(C,)`, and the kernel has its
    type and device.
    """
    return nn.functional.pad(scale.reshape(-1, 1, 1, 1), (k // 2,) * 4)
