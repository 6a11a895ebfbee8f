"""Makes OpenMMLab's registries know BNET and the backbones that place it.

`norm_cfg=dict(type='BNET', k=5)` works through mmengine's root registry in every library. The
backbones of a library are replaced under their own names when that library's registry loads its
modules, which mmengine does on first use: importing `bnet_mm` imports none of the libraries.
"""

from importlib import import_module

from mmengine.registry import MODELS, Registry

from bnet_mm import compat
from bnet_mm.norm import BNET

# Library scope -> the module that registers its placement-aware backbones.
BACKBONES = {'mmdet': 'bnet_mm.backbones.mmdet'}


def register() -> None:
    """Registers everything with mmengine; called once, by `import bnet_mm`."""
    compat.apply()
    MODELS.register_module('BNET', module=BNET)
    for child in MODELS.children.values():
        _add_backbones(child)

    # mmengine has no public event for 'a library's registry is born', and this is where it joins
    # its root; the library's own modules are imported later, from `_locations`.
    add_child = MODELS._add_child

    def add_child_with_backbones(registry: Registry) -> None:
        add_child(registry)
        _add_backbones(registry)

    MODELS._add_child = add_child_with_backbones


def _add_backbones(registry: Registry) -> None:
    module = BACKBONES.get(registry.scope)
    if module is None:
        return
    if registry._imported:
        import_module(module)
    else:
        # A new list: mmengine's default for it is one list, shared by all registries.
        registry._locations = [*registry._locations, module]
