"""mmengine's wrapper for several processes, for networks with synchronized norms on CPUs."""

from __future__ import annotations

from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn

from bnet_mm.kernels.statistics import synchronized_batch_norm


class CPUSyncBatchNorm(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` that trains on CPUs too, where torch's refuses the input."""

    def forward(self, input: Tensor) -> Tensor:
        return synchronized_batch_norm(self, input)


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """`MMDistributedDataParallel` that lets synchronized norms pass on CPUs.

    torch's SyncBatchNorm, for the norms beside BNET, becomes one that joins its statistics over
    gloo: its class changes, its tensors and names do not.
    """

    def __init__(self, module: nn.Module, *args, **kwargs):
        for norm in module.modules():
            if type(norm) is nn.SyncBatchNorm:
                norm.__class__ = CPUSyncBatchNorm
        super().__init__(module, *args, **kwargs)

    def _passing_sync_batchnorm_handle(self, module: nn.Module) -> None:
        if self.device_type != 'cpu':
            super()._passing_sync_batchnorm_handle(module)
