"""What the torch at hand can do, found by trying it: marks for tests that ask for more."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from bnet_mm.kernels.versions import HAS_CUSTOM_OPERATORS, HAS_DYNAMO_ONNX

HALF, ONES = torch.ones(2, 2, 2, 2, dtype=torch.float16), torch.ones(2)


def _runs(function: Callable, *args: torch.Tensor) -> bool:
    try:
        function(*args)
    except RuntimeError:
        return False
    return True


def _has_half_autocast() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch, which turns it off
        try:
            with torch.autocast('cpu', torch.float16):
                return torch.is_autocast_cpu_enabled()
        except RuntimeError:
            return False


def _has_new_triton() -> bool:
    if importlib.util.find_spec('triton') is None:
        return False
    import triton

    return tuple(map(int, triton.__version__.split('.')[:2])) >= (3, 3)


def skip_without(library: str) -> None:
    """Skips a test where an OpenMMLab library is not installed."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f'{library} is not installed')


needs_mmaction = pytest.mark.skipif(
    importlib.util.find_spec('mmaction') is None, reason='mmaction is not installed'
)
needs_torch_2 = pytest.mark.skipif(
    not hasattr(torch, 'func'),
    reason='torch 1.13 has no torch.func, no torch.compile and no `with torch.device`',
)
needs_assignment = pytest.mark.skipif(
    'assign' not in inspect.signature(torch.nn.Module.load_state_dict).parameters,
    reason='before torch 2.1 state dicts are copied',
)
needs_half_batch_norm = pytest.mark.skipif(
    not _runs(F.batch_norm, HALF, *[ONES] * 4),
    reason='this torch has no batch norm in float16 on CPUs',
)
needs_half_convolution = pytest.mark.skipif(
    not _runs(F.conv2d, HALF, HALF), reason='this torch has no convolution in float16 on CPUs'
)
needs_half_autocast = pytest.mark.skipif(
    not _has_half_autocast(), reason='this torch has no autocast to float16 on CPUs'
)
needs_new_triton = pytest.mark.skipif(not _has_new_triton(), reason='there is no Triton 3.3')
needs_custom_operators = pytest.mark.skipif(
    not HAS_CUSTOM_OPERATORS, reason='before torch 2.4 no compiler keeps operators'
)
needs_dynamo_onnx = pytest.mark.skipif(
    not HAS_DYNAMO_ONNX, reason='before torch 2.6 ONNX is exported from TorchScript alone'
)
