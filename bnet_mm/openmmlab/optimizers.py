"""mmengine's optimizer groups, with BNET's kernel and bias among the norms'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import Registry
from torch import nn

from bnet_mm.layers import DepthwiseTransform


def as_norm(module: nn.Module) -> nn.Module:
    """Returns a norm that holds the kernel and the bias of a `DepthwiseTransform`.

    Optimizer constructors go by a module's class, and would take it for a convolution. Any other
    module is returned as it is.
    """
    if not isinstance(module, DepthwiseTransform):
        return module
    norm = nn.GroupNorm(1, 1)
    norm.weight, norm.bias = module.weight, module.bias
    return norm


def kernels_as_norms(build_func: Callable) -> Callable:
    """Returns `build_func` with constructors for which a BNET's kernel and bias are a norm's.

    With `norm_decay_mult`, `bias_decay_mult`, `bias_lr_mult` and `dwconv_decay_mult` they are
    treated as weight and bias of a batch norm are; `custom_keys={'dw.weight': ...}` gives the
    kernels a decay of their own. For a model without BNET nothing differs.
    """

    @wraps(build_func)
    def build(cfg: Any, *args, registry: Registry, **kwargs) -> Any:
        constructor = build_func(cfg, *args, registry=registry, **kwargs)
        if isinstance(constructor, DefaultOptimWrapperConstructor):
            constructor.__class__ = _with_kernels(type(constructor))
        return constructor

    return build


@lru_cache(maxsize=None)
def _with_kernels(stock: type) -> type:
    # MMAction2's goes through the modules of a whole model, mmengine's calls itself for each.
    whole = stock.__module__.startswith('mmaction.')

    def add_params(self, params: list[dict], module: nn.Module, *args, **kwargs) -> None:
        seen = _NormsForKernels(module) if whole else as_norm(module)
        stock.add_params(self, params, seen, *args, **kwargs)

    return type(stock.__name__, (stock,), {'add_params': add_params, '__module__': __name__})


class _NormsForKernels:
    """Stands for a model whose modules are gone through."""

    def __init__(self, model: nn.Module):
        self._model = model

    def modules(self) -> Iterator[nn.Module]:
        return map(as_norm, self._model.modules())
