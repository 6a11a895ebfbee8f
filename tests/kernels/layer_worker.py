"""One process of a group: BNET on its share of a batch, against one process on the whole batch.

Started by torchrun; ends with an error unless everything agrees.
"""

from __future__ import annotations

import copy
import itertools
import os
import sys
from importlib import import_module
from importlib.util import find_spec

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import fsdp
from torch.nn.parallel import DistributedDataParallel

from bnet_mm.kernels.statistics import synchronized_batch_norm
from bnet_mm.layers import BNET, SyncBNET

CONVERSIONS = [nn.SyncBatchNorm.convert_sync_batchnorm]
if find_spec('mmengine') is not None:
    CONVERSIONS.append(import_module('mmengine.model').convert_sync_batchnorm)


class CPUSyncBatchNorm(nn.SyncBatchNorm):
    """torch's refuses CPUs."""

    def forward(self, input):
        return synchronized_batch_norm(self, input)


class OnCPUs(DistributedDataParallel):
    """torch's refuses synchronized norms on CPUs."""

    def __init__(self, module):
        for norm in module.modules():
            if type(norm) is nn.SyncBatchNorm:
                norm.__class__ = CPUSyncBatchNorm
        super().__init__(module)

    def _passing_sync_batchnorm_handle(self, module):
        pass


# How many of the joined batch's images each process has.
SPLITS = {2: [(3, 3), (5, 1), (6, 0)], 4: [(2, 2, 1, 1), (0, 3, 0, 3)]}


def network(norm: type, k: int, plain: type = nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        norm(6, k=k),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1),
        plain(4),
    ).double()


def randomize(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn(
            parameter.shape, generator=generator, dtype=parameter.dtype
        )
    return net


def run(net: nn.Module, x: torch.Tensor, total: int) -> torch.Tensor:
    y = net(x)
    # DDP takes the mean over processes; the whole batch's loss is a sum over images.
    (y.square().flatten(1).sum() * dist.get_world_size() / total).backward()
    return y


def compare(distributed: nn.Module, single: nn.Module, split: tuple[int, ...]) -> None:
    rank = dist.get_rank()
    x = torch.randn(
        sum(split), 3, 5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    mine = x.split(split)[rank].clone().requires_grad_()
    whole = x.clone().requires_grad_()
    y = single(whole)
    (y.square().flatten(1).sum() / len(x)).backward()
    ours = run(OnCPUs(distributed), mine, len(x))

    close = dict(rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours, y.split(split)[rank], **close)
    # Each process saw the gradient of its own loss, scaled by the number of processes.
    torch.testing.assert_close(
        mine.grad, whole.grad.split(split)[rank] * dist.get_world_size(), **close
    )
    theirs = dict(single.named_parameters())
    for name, parameter in distributed.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, **close)
    buffers = dict(single.named_buffers())
    for name, buffer in distributed.named_buffers():
        torch.testing.assert_close(buffer, buffers[name], **close)


def fully_sharded(whole: nn.Sequential) -> None:
    """Takes a step with every parameter in shards; FSDP's first version wants a GPU."""
    processes = dist.get_world_size()
    x = torch.randn(
        2 * processes, 3, 5, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    sharded = randomize(network(SyncBNET, 3, CPUSyncBatchNorm))
    mesh = torch.distributed.device_mesh.init_device_mesh('cpu', (processes,))
    for layer in [layer for layer in sharded if list(layer.parameters())]:
        fsdp.fully_shard(layer, mesh=mesh)
    fsdp.fully_shard(sharded, mesh=mesh)
    for net, part in ((whole, x), (sharded, x.chunk(processes)[dist.get_rank()])):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        net(part).square().mean().backward()
        optimizer.step()
    for ours, theirs in zip(sharded.parameters(), whole.parameters()):
        torch.testing.assert_close(ours.full_tensor(), theirs)


def main() -> None:
    dist.init_process_group('gloo')
    calls = []
    gather, reduce = dist.all_gather, dist.all_reduce
    dist.all_gather = lambda *a, **k: (calls.append('gather'), gather(*a, **k))[1]
    dist.all_reduce = lambda *a, **k: (calls.append('reduce'), reduce(*a, **k))[1]
    for split, k in itertools.product(SPLITS[dist.get_world_size()], (1, 3, 5)):
        whole = randomize(network(BNET, k))
        named = randomize(network(SyncBNET, k, CPUSyncBatchNorm))
        compare(named, copy.deepcopy(whole), split)
        for convert in CONVERSIONS:
            converted = convert(randomize(network(BNET, k)))
            calls.clear()
            compare(converted, copy.deepcopy(whole), split)
            assert calls.count('gather') == 2, calls  # two norms, once forward
            assert calls.count('reduce') == 2, calls  # and once backward

    if hasattr(fsdp, 'fully_shard'):  # since torch 2.6
        fully_sharded(randomize(network(BNET, 3)))

    # Local statistics: each process is a network of its own, and DDP takes the mean.
    k = 3
    local = randomize(network(BNET, k))
    alone = copy.deepcopy(local)
    x = torch.randn(4, 3, 5, 7, dtype=torch.float64)  # another in each process
    torch.manual_seed(dist.get_rank())
    run(OnCPUs(local), x, len(x))
    run(alone, x, len(x))
    for ours, mine in zip(local.parameters(), alone.parameters()):
        mean = mine.grad.clone()
        reduce(mean)
        torch.testing.assert_close(ours.grad, mean / dist.get_world_size())

    # One value per channel in all: the error that one process gives.
    one = torch.randn(int(dist.get_rank() == 0), 3, 1, 1, dtype=torch.float64)
    try:
        randomize(network(SyncBNET, 3, CPUSyncBatchNorm))(one)
    except ValueError as error:
        assert 'more than 1 value per channel' in str(error)
    else:
        raise AssertionError('no error for one value per channel')
    dist.barrier()
    print('agreed', file=sys.stderr, flush=True)
    # The group is not destroyed: torch waits for gloo's threads and holds the interpreter's lock,
    # for which a thread that lets go of a tensor waits. At the interpreter's end such a thread
    # aborts the process.
    os._exit(0)


if __name__ == '__main__':
    main()
