"""Makes OpenMMLab's registries know BNET and what goes with it.

`norm_cfg=dict(type='BNET', k=5)` works through mmengine's root registry in every library. The
backbones of a library are replaced under their own names when that library's registry loads its
modules, which mmengine does on first use: importing `bnet_mm` imports none of the libraries.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

from mmengine.registry import DATASETS, HOOKS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, Registry

from bnet_mm.checkpoint.verification import BUILDERS
from bnet_mm.layers import BNET, GNET, INET, SNET, BNReLUConv, SwitchNorm2d, SyncBNET
from bnet_mm.layers.frelu import FReLU
from bnet_mm.openmmlab import gaps
from bnet_mm.openmmlab.destinations import build_backbone

# Library scope -> the modules that register its placement-aware backbones, and its datasets.
BACKBONES = {
    'mmaction': ['bnet_mm.openmmlab.backbones.mmaction'],
    'mmdet': ['bnet_mm.openmmlab.backbones.mmdet'],
    'mmpretrain': [
        'bnet_mm.openmmlab.backbones.mmpretrain',
        'bnet_mm.openmmlab.backbones.birealnet',
        'bnet_mm.openmmlab.backbones.cifar_resnet',
    ],
    'mmseg': ['bnet_mm.openmmlab.backbones.mmseg'],
}
CIFAR = {'mmpretrain': ['bnet_mm.openmmlab.cifar10']}
# The module that registers the optimizer constructors of all libraries, and those of one.
OPTIMIZERS = ['bnet_mm.openmmlab.optimizers']
OPTIMIZERS_OF = {'mmaction': ['bnet_mm.openmmlab.tsm_optimizer']}
# The module of the hook that a config can ask for.
HOOK_MODULES = ['bnet_mm.reports.vis_hook']


def register() -> None:
    """Registers everything with mmengine; called once, by `import bnet_mm`."""
    gaps.apply()
    for norm in (BNET, SyncBNET, GNET, SNET, INET, BNReLUConv):
        MODELS.register_module(norm.__name__, module=norm)
    for library in BACKBONES:
        BUILDERS[library] = partial(build_backbone, library)
    MODELS.register_module('SN', module=SwitchNorm2d)
    MODELS.register_module('FReLU', module=FReLU)
    _load_with_children(MODELS, lambda scope: BACKBONES.get(scope, []))
    _load_with_children(DATASETS, lambda scope: CIFAR.get(scope, []))
    # A library's registry looks into mmengine's without loading it, so each must know of it.
    _load_with(OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS)
    _load_with(HOOKS, HOOK_MODULES)
    _load_with_children(HOOKS, lambda scope: HOOK_MODULES)
    _load_with_children(
        OPTIM_WRAPPER_CONSTRUCTORS, lambda scope: OPTIMIZERS_OF.get(scope, OPTIMIZERS)
    )


def _load_with_children(root: Registry, modules_of: Callable[[str], list[str]]) -> None:
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


def _load_with(registry: Registry, modules: list[str]) -> None:
    if registry._imported:
        for module in modules:
            import_module(module)
    else:
        # A new list: mmengine's default for it is one list, shared by all registries.
        registry._locations = [*registry._locations, *modules]
