"""What older versions of torch lack, each looked up here once and nowhere else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

# Operators of Python functions with shapes for compilers: torch 2.4. Before it compiled code holds
# torch's own operators.
HAS_CUSTOM_OPERATORS = hasattr(torch.library, 'custom_op')
# ONNX from exported programs of free sizes: torch 2.6. Before it, the exporter of TorchScript.
HAS_DYNAMO_ONNX = hasattr(getattr(getattr(torch, 'export', None), 'Dim', None), 'DYNAMIC')
_compiler = getattr(torch, 'compiler', None)

# Whether code is looked at by dynamo (or an exporter), which takes the call for a constant.
if hasattr(_compiler, 'is_compiling'):
    is_compiling = torch.compiler.is_compiling
elif find_spec('torch._dynamo') is not None:  # before torch 2.3: the one that its dynamo knows
    from torch._dynamo.external_utils import is_compiling
else:  # torch 1.13

    def is_compiling() -> bool:
        """Returns False: this torch compiles nothing."""
        return False


if hasattr(_compiler, 'is_dynamo_compiling'):
    is_dynamo_compiling = torch.compiler.is_dynamo_compiling
else:
    is_dynamo_compiling = is_compiling


if hasattr(torch.amp, 'is_autocast_available'):
    is_autocast_available = torch.amp.is_autocast_available

    def is_autocast_enabled(device: str) -> bool:
        """Tells whether `torch.autocast` is on for a kind of device."""
        # torch.compile takes no question whether there is one, and there is for these.
        known = device in ('cpu', 'cuda') or is_autocast_available(device)
        return known and torch.is_autocast_enabled(device)

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


# For `register_forward_hook`: also after an error in the module. Since torch 2.1.
_hook_options = inspect.signature(nn.Module.register_forward_hook).parameters
EVEN_ON_ERROR = {'always_call': True} if 'always_call' in _hook_options else {}


if hasattr(torch, 'func'):
    functional_call = torch.func.functional_call
else:  # torch 1.13
    from torch.nn.utils.stateless import functional_call  # type: ignore[assignment] # noqa: F401


def storage_of(tensor: Tensor) -> torch.UntypedStorage:
    """Returns the memory that a tensor is a view of."""
    if hasattr(tensor, 'untyped_storage'):  # since torch 2.0
        return tensor.untyped_storage()
    return tensor.storage().untyped()


def assign_state_dict(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads a state dict strictly, whose tensors keep their types and strides."""
    if 'assign' in inspect.signature(module.load_state_dict).parameters:  # since torch 2.1
        module.load_state_dict(state, assign=True)
        return
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name in state and state[name].shape == tensor.shape:
            tensor.data = torch.empty_like(state[name])
    module.load_state_dict(state)


def cpu_capability() -> str:
    """Returns the instruction set that torch uses: 'AVX512', 'AVX2', 'DEFAULT' or another."""
    if hasattr(torch.backends, 'cpu'):  # since torch 2.1
        return torch.backends.cpu.get_cpu_capability()
    found = re.search(r'CPU capability usage: (\w+)', torch.__config__.show())
    return found[1] if found else 'DEFAULT'
