"""Registers BNET, and all that configs can name, with mmengine's root registries.

`norm_cfg=dict(type='BNET', k=5)` works through them in every library: a name that a library's own
registry does not have is looked up in mmengine's. Nothing that is registered is replaced.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from mmengine.registry import DATASETS, HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, Registry
from mmengine.runner import CheckpointLoader

from bnet_mm.checkpoint.verification import BUILDERS
from bnet_mm.layers import BNET, GNET, INET, SNET, BNControl, SwitchNorm2d, SyncBNET
from bnet_mm.layers.frelu import FReLU
from bnet_mm.openmmlab import gaps
from bnet_mm.openmmlab.building import extend, placing
from bnet_mm.openmmlab.destinations import build_backbone
from bnet_mm.openmmlab.libraries import LIBRARIES
from bnet_mm.openmmlab.loading import load_from_safetensors
from bnet_mm.openmmlab.optimizers import kernels_as_norms

NORMS = {norm.__name__: norm for norm in (BNET, SyncBNET, GNET, SNET, INET, BNControl, FReLU)}
# What needs a library, or a room above this one: imported when it is built, and so by name.
LATER: tuple[tuple[Registry, str, str], ...] = (
    (MODELS, 'BiRealNet', 'bnet_mm.openmmlab.backbones.birealnet'),
    (MODELS, 'CifarResNet', 'bnet_mm.openmmlab.backbones.cifar_resnet'),
    (DATASETS, 'CIFAR10Folders', 'bnet_mm.openmmlab.cifar10'),
    (HOOKS, 'BNETVisHook', 'bnet_mm.reports.vis_hook'),
)
SAFETENSORS = r'.*\.safetensors$'


def register() -> None:
    """Registers everything with mmengine; called once, by `import bnet_mm`."""
    gaps.apply()
    for name, norm in {**NORMS, 'SN': SwitchNorm2d}.items():
        add(MODELS, name, norm)
    for registry, name, module in LATER:
        add(registry, name, _later(module, name))
    for scope in LIBRARIES:
        BUILDERS[scope] = partial(build_backbone, scope)
    extend(MODELS, placing)
    extend(OPTIM_WRAPPER_CONSTRUCTORS, kernels_as_norms)
    if SAFETENSORS not in CheckpointLoader._schemes:
        CheckpointLoader.register_scheme(SAFETENSORS, load_from_safetensors)


def add(registry: Registry, name: str, module: Any) -> None:
    """Registers `module`, unless another has the name, who keeps it with a warning."""
    owner = registry.module_dict.get(name)
    if owner is None:
        registry.register_module(name, module=module)
    elif owner is not module:
        warnings.warn(
            f'{name!r} is registered in {registry.name!r} by {owner.__module__} and stays that; '
            f"bnet_mm's is not registered",
            stacklevel=2,
        )


def _later(module: str, name: str) -> Callable:
    def build(*args, **kwargs) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    build.__name__, build.__module__ = name, module
    return build
