"""What older versions of torch lack, each looked up here once and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import nn

# Operators of Python functions with shapes for compilers: torch 2.4. Before it compiled code holds
# torch's own operators.
HAS_CUSTOM_OPERATORS = hasattr(torch.library, 'custom_op')
# ONNX from exported programs of free sizes: torch 2.6. Before it, the exporter of TorchScript.
HAS_DYNAMO_ONNX = hasattr(getattr(getattr(torch, 'export', None), 'Dim', None), 'DYNAMIC')
_compiler = getattr(torch, 'compiler', None)

# Whether code is looked at by dynamo (or an exporter), which takes the call for a constant.
if hasattr(_compiler, 'is_compiling'):
    is_compiling = torch.compiler.is_compiling
else:  # before torch 2.3: the one of several that its dynamo knows
    from torch._dynamo.external_utils import is_compiling


if hasattr(_compiler, 'is_dynamo_compiling'):
    is_dynamo_compiling = torch.compiler.is_dynamo_compiling
else:
    is_dynamo_compiling = is_compiling


if hasattr(torch.amp, 'is_autocast_available'):
    is_autocast_available = torch.amp.is_autocast_available

    def is_autocast_enabled(device: str) -> bool:
        """Tells whether `torch.autocast` is on for a kind of device."""
        return torch.is_autocast_enabled(device)

else:  # before torch 2.4

    def is_autocast_available(device_type: str) -> bool:
        """Tells whether `torch.autocast` takes a kind of device."""
        return device_type in ('cpu', 'cuda', 'xpu', 'hpu')

    def is_autocast_enabled(device: str) -> bool:
        """Tells whether `torch.autocast` is on for a kind of device."""
        return torch.is_autocast_cpu_enabled() if device == 'cpu' else torch.is_autocast_enabled()


def call_before_loading(module: nn.Module, hook: Callable) -> None:
    """Calls `hook(module, state_dict, prefix, ...)` whenever a state dict is loaded."""
    if hasattr(module, 'register_load_state_dict_pre_hook'):  # since torch 2.5
        module.register_load_state_dict_pre_hook(hook)
    else:
        module._register_load_state_dict_pre_hook(hook, with_module=True)


def cpu_capability() -> str:
    """Returns the instruction set that torch uses: 'AVX512', 'AVX2', 'DEFAULT' or another."""
    if hasattr(torch.backends, 'cpu'):  # since torch 2.1
        return torch.backends.cpu.get_cpu_capability()
    found = re.search(r'CPU capability usage: (\w+)', torch.__config__.show())
    return found[1] if found else 'DEFAULT'
