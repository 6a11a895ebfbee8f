"""Optimizer groups in which BNET's kernel and bias get what a norm's scale and shift get."""

from mmengine.optim import DefaultOptimWrapperConstructor as _DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from bnet_mm.norm import DepthwiseTransform


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class DefaultOptimWrapperConstructor(_DefaultOptimWrapperConstructor):
    """mmengine's own, which goes by a module's class and takes BNET's kernel for no norm's.

    With `norm_decay_mult`, `bias_decay_mult`, `bias_lr_mult` and `dwconv_decay_mult` the kernel and
    the bias are treated as `weight` and `bias` of a batch norm are.
    """

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        if isinstance(module, DepthwiseTransform):
            transform, module = module, nn.GroupNorm(1, 1)
            module.weight, module.bias = transform.weight, transform.bias
        super().add_params(params, module, prefix=prefix, **kwargs)
