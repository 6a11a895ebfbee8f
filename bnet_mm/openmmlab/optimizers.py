"""mmengine's optimizer groups, with BNET's kernel and bias among the norms'."""

from mmengine.optim import DefaultOptimWrapperConstructor as _DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
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


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class DefaultOptimWrapperConstructor(_DefaultOptimWrapperConstructor):
    """mmengine's own, for which a BNET's kernel and bias are weight and bias of a norm.

    With `norm_decay_mult`, `bias_decay_mult`, `bias_lr_mult` and `dwconv_decay_mult` they are
    treated as those of a batch norm are. `custom_keys={'dw.weight': dict(decay_mult=...)}` gives
    the kernels a decay of their own.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        super().add_params(params, as_norm(module), prefix=prefix, **kwargs)
