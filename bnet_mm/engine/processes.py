"""Several processes on machines without GPUs."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device


@contextmanager
def cpu_processes(cfg: Config) -> Iterator[None]:
    """Joins the processes that torchrun started over gloo, where mmengine would ask for a GPU.

    mmengine 0.10.7 takes it for granted that each process has an accelerator, when it joins them
    and when it wraps the model. With accelerators, or without a launcher, nothing is done here.
    What was built inside must not be held any more when this ends.
    """
    if cfg.get('launcher') != 'pytorch' or get_device() != 'cpu' or dist.is_initialized():
        yield
        return
    wrapper = cfg.get('model_wrapper_cfg') or ConfigDict(
        broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False)
    )
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('device_ids', None)
    cfg.model_wrapper_cfg = wrapper
    dist.init_process_group('gloo')
    try:
        yield
    finally:
        # A thread of gloo that lets go of a tensor while the interpreter ends aborts the process.
        # They end with the group, and that with the last model which is wrapped for it.
        gc.collect()
        dist.destroy_process_group()
