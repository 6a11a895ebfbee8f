"""MMAction2's own optimizer groups, with BNET's kernel and bias among the norms'."""

from collections.abc import Iterator

from mmaction.engine.optimizers import TSMOptimWrapperConstructor as _TSMOptimWrapperConstructor
from mmaction.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from bnet_mm.openmmlab import optimizers  # noqa: F401  (mmengine's own, which a config may name as well)
from bnet_mm.openmmlab.optimizers import as_norm


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class TSMOptimWrapperConstructor(_TSMOptimWrapperConstructor):
    """The library's own, in which a BNET's kernel and bias are not decayed, as a norm's are not."""

    def add_params(self, params: list[dict], model: nn.Module, **kwargs) -> None:
        super().add_params(params, _NormsForKernels(model), **kwargs)


class _NormsForKernels:
    """Stands for a model whose modules are gone through."""

    def __init__(self, model: nn.Module):
        self._model = model

    def modules(self) -> Iterator[nn.Module]:
        return map(as_norm, self._model.modules())
