"""Registers BNET, and all that configs can name, with OpenMMLab's registries.

`norm_cfg=dict(type='BNET', k=5)` works through mmengine's root registry in every library. The
backbones of a library are replaced under their own names when that library's registry loads its
modules, which mmengine does on first use: importing `bnet_mm` imports none of the libraries.
"""

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module

from mmengine.registry import DATASETS, HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, Registry

from bnet_mm.checkpoint.verification import BUILDERS
from bnet_mm.layers import BNET, GNET, INET, SNET, BNReLUConv, SwitchNorm2d, SyncBNET
from bnet_mm.layers.frelu import FReLU
from bnet_mm.openmmlab import gaps
from bnet_mm.openmmlab.destinations import build_backbone
from bnet_mm.openmmlab.libraries import LIBRARIES

# By name, since they stand above this room: what a config's `custom_hooks` may ask for.
HOOK_MODULES = ('bnet_mm.reports.vis_hook',)
OPTIMIZERS = 'bnet_mm.openmmlab.optimizers'


def register() -> None:
    """Registers everything with mmengine; called once, by `import bnet_mm`."""
    gaps.apply()
    for norm in (BNET, SyncBNET, GNET, SNET, INET, BNReLUConv, FReLU):
        MODELS.register_module(norm.__name__, module=norm)
    MODELS.register_module('SN', module=SwitchNorm2d)
    for scope in LIBRARIES:
        BUILDERS[scope] = partial(build_backbone, scope)
    _load_with_children(MODELS, _models)
    _load_with_children(DATASETS, _datasets)
    # A library's registry looks into mmengine's without loading it, so each must know of these.
    for registry, modules in ((OPTIM_WRAPPER_CONSTRUCTORS, (OPTIMIZERS,)), (HOOKS, HOOK_MODULES)):
        _load_with(registry, modules)
    _load_with_children(OPTIM_WRAPPER_CONSTRUCTORS, _optimizers)
    _load_with_children(HOOKS, lambda scope: HOOK_MODULES)


def _models(scope: str) -> list[str]:
    if scope not in LIBRARIES:
        return []
    return [f'{__package__}.{m}' for m in (f'backbones.{scope}', *LIBRARIES[scope].models)]


def _datasets(scope: str) -> list[str]:
    return [f'{__package__}.{m}' for m in LIBRARIES[scope].datasets] if scope in LIBRARIES else []


def _optimizers(scope: str) -> list[str]:
    own = LIBRARIES[scope].optimizers if scope in LIBRARIES else ()
    return [f'{__package__}.{module}' for module in own] or [OPTIMIZERS]


def _load_with_children(root: Registry, modules_of: Callable[[str], Iterable[str]]) -> None:
    """Makes each library's registry below `root` load `modules_of(scope)` with its own modules."""
    for child in root.children.values():
        _load_with(child, modules_of(child.scope))

    # mmengine has no public event for 'a library's registry is born', and this is where it joins
    # its root; the library's own modules are imported later, from `_locations`.
    add_child = root._add_child

    def add_child_and_modules(registry: Registry) -> None:
        add_child(registry)
        _load_with(registry, modules_of(registry.scope))

    root._add_child = add_child_and_modules


def _load_with(registry: Registry, modules: Iterable[str]) -> None:
    if registry._imported:
        for module in modules:
            import_module(module)
    else:
        # A new list: mmengine's default for it is one list, shared by all registries.
        registry._locations = [*registry._locations, *modules]
