"""mmengine's strategies, by its FlexibleRunner: what they do to a model leaves BNET whole."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import bnet_mm
import bnet_mm.engine.cpu_wrapper  # noqa: F401  (registers the wrapper)
from bnet_mm.checkpoint import read_checkpoint
from bnet_mm.layers import BNET, EnhancedNorm, SyncBNET
from bnet_mm.text import without_prefix


class Toy(BaseModel):
    def __init__(self, norm, k):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = norm(4, k=k)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.head(self.norm(self.conv(inputs)).relu())
        return {'loss': out.square().mean()} if mode == 'loss' else out


def images():
    return torch.randn(4, 3, 6, 7, generator=torch.Generator().manual_seed(1))


def train(model, strategy, work_dir, **kwargs):
    """Takes two steps with the same images and returns the runner."""
    runner = FlexibleRunner(
        model,
        work_dir=str(work_dir),
        experiment_name=work_dir.name,
        strategy=strategy,
        train_dataloader=dict(
            dataset=[dict(inputs=image) for image in images()],
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
            paramwise_cfg=dict(norm_decay_mult=0.0),
        ),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        log_level='ERROR',
        **kwargs,
    )
    runner.train()
    return runner


def expected(model):
    """Returns the weights after the same two steps, taken by hand."""
    kernels = {id(p) for m in model.modules() if isinstance(m, EnhancedNorm)
               for p in m.parameters()}  # fmt: skip
    parts = ([], [])
    for parameter in model.parameters():
        parts[id(parameter) in kernels].append(parameter)
    optimizer = torch.optim.SGD(
        [dict(params=parts[0], weight_decay=0.01), dict(params=parts[1], weight_decay=0.0)], lr=0.1
    )
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(images(), mode='loss')['loss'].backward()
        optimizer.step()
    return model.state_dict()


def assert_trained(runner, wanted, work_dir):
    """Checks weights and the checkpoint, and that the kernel has left Dirac."""
    model = runner.model
    model = model.module if isinstance(model, DistributedDataParallel) else model
    saved = read_checkpoint(work_dir / 'epoch_2.pth')['state_dict']
    saved = {without_prefix(name, 'module.'): value for name, value in saved.items()}  # DDP's
    for state in (model.state_dict(), saved):
        assert state.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(state[name], value)
    kernel = wanted['norm.dw.weight'].clone()
    kernel[:, :, kernel.shape[-1] // 2, kernel.shape[-1] // 2] -= 1
    assert kernel.any()


@pytest.mark.parametrize('norm', [BNET, SyncBNET])
@pytest.mark.parametrize('k', [1, 3, 5, 7])
def test_single_device(norm, k, tmp_path):
    model = Toy(norm, k)
    wanted = expected(Toy(BNET, k))
    runner = train(model, dict(type='SingleDeviceStrategy'), tmp_path)
    assert_trained(runner, wanted, tmp_path)
    assert not isinstance(runner.model.norm.norm, nn.SyncBatchNorm)


@pytest.mark.parametrize('sync_bn', [None, 'torch'])
@pytest.mark.parametrize('k', [1, 3, 5, 7])
def test_distributed_data_parallel(sync_bn, k, tmp_path, process_group, monkeypatch):
    """On CPUs the group has to be there before and `device_ids` to be none, else a GPU is asked."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    wrapper = dict(type='CPUDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    strategy = dict(type='DDPStrategy', model_wrapper=wrapper, sync_bn=sync_bn)
    runner = train(Toy(BNET, k), strategy, tmp_path, launcher='pytorch')
    assert isinstance(runner.model, DistributedDataParallel)
    assert isinstance(runner.model.module.norm.norm, nn.SyncBatchNorm) == (sync_bn == 'torch')
    assert_trained(runner, expected(Toy(BNET, k)), tmp_path)
