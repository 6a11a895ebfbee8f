"""Builds what configs ask for, through the `build_func` that mmengine gives its registries.

It acts on configs of this package's norms and activations alone; everything else is passed on as it
came. A library's registry inherits the function when it is made, as mmengine documents.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import Registry
from torch import nn

from bnet_mm.kernels.versions import call_before_loading
from bnet_mm.layers import EnhancedNorm
from bnet_mm.openmmlab.config import class_of
from bnet_mm.openmmlab.libraries import LIBRARIES
from bnet_mm.openmmlab.norm_cfg import NormSpec
from bnet_mm.openmmlab.placing import Placed, build_around, build_placed, is_of_elsewhere


def extend(root: Registry, extended: Callable[[Callable], Callable]) -> None:
    """Puts `extended(build_func)` in the place of the `build_func` of a registry and its children.

    A child with a function of its own keeps that.
    """
    original = root.build_func
    if hasattr(original, 'extends'):
        return
    function = extended(original)
    function.extends = original  # type: ignore[attr-defined]
    registries = [root]
    for registry in registries:
        registries += registry.children.values()
        if registry.build_func is original:
            registry.build_func = function


def placing(build_func: Callable) -> Callable:
    """Returns `build_func` for networks that place BNET; checkpoints are translated."""

    @wraps(build_func)
    def build(cfg: Any, *args, registry: Registry, **kwargs) -> Any:
        def plain(cfg: Any) -> Any:
            return build_func(cfg, *args, registry=registry, **kwargs)

        if isinstance(cfg, dict) and 'act_cfg' in cfg:
            cfg = _with_funnel_class(cfg, registry)
        spec = NormSpec.parse(cfg.get('norm_cfg')) if isinstance(cfg, dict) else None
        if spec is not None:
            model = build_placed(plain, cfg, spec, registry)
        elif isinstance(cfg, dict) and is_of_elsewhere(cfg.get('backbone')):
            model = build_around(plain, cfg)
        else:
            model = plain(cfg)
        if isinstance(model, nn.Module):
            _translate_on_load(model)
        return model

    return build


def _with_funnel_class(cfg: dict, registry: Registry) -> dict:
    """Returns `cfg` with the class that takes FReLU for its own, where there is one."""
    kind = class_of(cfg, registry)
    if not isinstance(kind, type):
        return cfg
    scope, name = kind.__module__.partition('.')[0], kind.__name__
    library = LIBRARIES.get(scope)
    # The libraries' own of these classes take no `act_cfg` at all.
    if library is None or name not in library.funnel:
        return cfg
    ours = getattr(import_module(f'{__package__}.backbones.{scope}'), name)
    if not issubclass(ours, kind):  # another class of that name
        return cfg
    changed = cfg.copy()
    changed['type'] = ours
    return changed


def _translate_on_load(model: nn.Module) -> None:
    from bnet_mm.openmmlab.backbones.funnel_aware import FunnelAware
    from bnet_mm.openmmlab.loading import adapt_on_load

    if is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        return  # whoever loads into them, loads into what they wrap
    if any(isinstance(module, (EnhancedNorm, Placed, FunnelAware)) for module in model.modules()):
        hooks = model._load_state_dict_pre_hooks.values()
        if not any(getattr(hook, 'hook', hook) is adapt_on_load for hook in hooks):
            call_before_loading(model, adapt_on_load)
