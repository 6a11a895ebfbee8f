"""Training in several processes on machines without GPUs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from bnet_mm.engine.cpu_wrapper import CPUDistributedDataParallel


@contextmanager
def cpu_processes(cfg: Config) -> Iterator[None]:
    """Joins the processes that torchrun started over gloo, where mmengine would require a GPU.

    mmengine 0.10.7 requires an accelerator for each process, both to join them and to wrap the
    model. With accelerators, or without a launcher, this does nothing. Nothing that was built
    inside may be referenced any more when it ends.
    """
    if cfg.get('launcher') != 'pytorch' or get_device() != 'cpu' or dist.is_initialized():
        yield
        return
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False)
    )
    stock = wrapper.get('type', 'MMDistributedDataParallel') == 'MMDistributedDataParallel'
    if stock and (cfg.get('bnet_mm') or {}).get('cpu_sync_bn', True):
        wrapper['type'] = CPUDistributedDataParallel.__name__
    wrapper.setdefault('device_ids', None)
    cfg.model_wrapper_cfg = wrapper
    dist.init_process_group('gloo')
    try:
        yield
    finally:
        # A gloo thread that releases a tensor at interpreter shutdown aborts the process. The
        # threads end with the group, and the group with the last model that is wrapped for it.
        gc.collect()
        dist.destroy_process_group()
