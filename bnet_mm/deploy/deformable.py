"""mmcv's deformable convolutions as the operator that ONNX has for them.

mmcv writes operators of its own, from before ONNX had one; of the runtimes here onnxruntime knows
ONNX's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.modules.utils import _pair

from bnet_mm.errors import InputError

OPSET = 19  # the first that has DeformConv
# Where mmcv has its functions, and by which names mmdeploy rewrites them.
FUNCTIONS = (
    'mmcv.ops.deform_conv.DeformConv2dFunction',
    'mmcv.ops.modulated_deform_conv.ModulatedDeformConv2dFunction',
)


class _TooOldError(InputError):
    """An operator is asked for that the version of ONNX's operators has not."""


def with_deformable(
    model: nn.Module, export: Callable[[int | None], None], opset: int | None
) -> None:
    """Lets torch's older exporter write deformable convolutions, in the first opset that has them.

    Args:
        model: what is exported.
        export: writes a graph in the opset that it is given, None for the exporter's own.
        opset: which was asked for, if any.

    Raises:
        InputError: the model has deformable convolutions, and `opset` is too old for them.
    """
    with ExitStack() as stack:
        for name, symbolic in zip(FUNCTIONS, (_plain, _modulated)):
            module, _, function = name.rpartition('.')
            if module in sys.modules:  # otherwise no model has any
                own = getattr(sys.modules[module], function)
                stack.enter_context(patch.object(own, 'symbolic', staticmethod(symbolic)))
        try:
            export(opset or (OPSET if _is_deformable(model) else None))
        except _TooOldError:  # of one that is no module, but a function
            if opset is not None:
                raise
            export(OPSET)


def _is_deformable(model: nn.Module) -> bool:
    kinds = {'DeformConv2d', 'ModulatedDeformConv2d'}
    return any(base.__name__ in kinds for m in model.modules() for base in type(m).__mro__)


def _plain(graph: Any, input: Any, offset: Any, weight: Any, *settings: Any) -> Any:
    return graph.op('DeformConv', input, weight, offset, **_options(graph, *settings))


def _modulated(
    graph: Any, input: Any, offset: Any, mask: Any, weight: Any, bias: Any = None, *settings: Any
) -> Any:
    options = _options(graph, *settings)
    if bias is None:
        bias = graph.op('Constant', value_t=torch.zeros(weight.type().sizes()[0]))
    return graph.op('DeformConv', input, weight, offset, bias, mask, **options)


def _options(
    graph: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    deform_groups: int = 1,
    *_: object,
) -> dict[str, Any]:
    """Returns attributes of ONNX's operator from the settings that mmcv's functions share."""
    if graph.opset < OPSET:
        raise _TooOldError(
            f'opset {graph.opset} has no deformable convolution: name {OPSET} or a newer one'
        )
    return dict(
        strides_i=_pair(stride),
        pads_i=[*_pair(padding), *_pair(padding)],
        dilations_i=_pair(dilation),
        group_i=groups,
        offset_group_i=deform_groups,
    )
