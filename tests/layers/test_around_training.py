"""What trainings do around a norm: averages of weights, precise statistics, checkpointing."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.engine.hooks.sync_norm_hook import get_norm_states
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmpretrain.engine.hooks.precise_bn_hook import update_bn_stats
from torch import nn

from bnet_mm.layers import BNET, EnhancedNorm

SIZES = pytest.mark.parametrize('k', [1, 3, 5, 7])


def network(norm=BNET, **kwargs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm(4, **kwargs), nn.ReLU())


def batches(count=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 6, 6, generator=generator) for _ in range(count)]


def moved(net):
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


@SIZES
@pytest.mark.parametrize('update_buffers', [True, False])
def test_averaged_weights_follow_kernel_and_statistics(update_buffers, k):
    net = network(k=k)
    average = ExponentialMovingAverage(net, momentum=0.25, update_buffers=update_buffers)
    average.update_parameters(net)  # the first is a copy
    before = copy.deepcopy(average.module.state_dict())
    moved(net)(batches()[0])
    average.update_parameters(net)
    for name in ('1.dw.weight', '1.dw.bias'):
        expected = 0.75 * before[name] + 0.25 * net.state_dict()[name]
        torch.testing.assert_close(average.module.state_dict()[name], expected)
    mean = average.module[1].norm.running_mean
    expected = net[1].norm.running_mean * (0.25 if update_buffers else 1)
    torch.testing.assert_close(mean, expected)
    # The average is a network of its own.
    assert average.module[1].dw.weight is not net[1].dw.weight


class Model(nn.Module):
    """As much of a model as mmpretrain's precise statistics ask for."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def data_preprocessor(self, data, training):
        return {'inputs': data}

    def forward(self, inputs):
        return self.net(inputs)


class Loader(list):
    batch_size = 4


@SIZES
def test_precise_statistics_are_those_of_the_norm_inside(k):
    loader = Loader(batches())
    bnet, bn = network(k=k), network(nn.BatchNorm2d)
    for net in (bnet, bn):
        update_bn_stats(Model(net.train()), loader, num_samples=12, logger='silent')
    torch.testing.assert_close(bnet[1].norm.running_mean, bn[1].running_mean)
    torch.testing.assert_close(bnet[1].norm.running_var, bn[1].running_var)
    assert bnet[1].norm.momentum == 0.1


@SIZES
def test_synchronizing_states_finds_the_norm_inside_and_loads_it(k):
    net = network(k=k)
    net(batches()[0])
    states = get_norm_states(net)
    assert set(states) == {
        f'1.norm.{n}' for n in ('running_mean', 'running_var', 'num_batches_tracked')
    }
    other = network(k=k)
    kernel = moved(other)[1].dw.weight.detach().clone()
    other.load_state_dict(states, strict=False)
    assert torch.equal(other[1].norm.running_mean, net[1].norm.running_mean)
    assert torch.equal(other[1].dw.weight, kernel)


@pytest.mark.parametrize(
    ('library', 'k'),
    [*(('mmdet', k) for k in (1, 3, 5, 7)), ('mmseg', 5), ('mmpretrain', 7), ('mmaction', 3)],
)
def test_gradient_checkpointing_is_as_with_batch_norm(library, k):
    __import__(f'{library}.models')
    start = dict(pretrained=None) if library == 'mmaction' else {}
    depth = 50 if library == 'mmaction' else 18  # whose basic block has no checkpointing
    cfg = dict(type=f'{library}.ResNet', depth=depth, out_indices=(3,), **start)
    nets = []
    for norm, with_cp in (('BNET', True), ('BNET', False), ('BN', True)):
        options = dict(k=k) if norm == 'BNET' else {}
        torch.manual_seed(0)
        net = MODELS.build({**cfg, **dict(norm_cfg=dict(type=norm, **options), with_cp=with_cp)})
        if nets:
            net.load_state_dict(nets[0].state_dict(), strict=norm == 'BNET')
        net.norm_eval = False
        net.train()
        nets.append(net)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for net in nets:
        inputs = x.clone().requires_grad_()
        out = net(inputs)
        (out[0] if isinstance(out, tuple) else out).square().mean().backward()
    checkpointed, plain, batch_norm = nets
    for name, parameter in checkpointed.named_parameters():
        other = dict(plain.named_parameters())[name]
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-3, atol=1e-5)
    counts = [
        [int(b) for n, b in net.named_buffers() if n.endswith('num_batches_tracked')]
        for net in (checkpointed, batch_norm)
    ]
    assert counts[0] == counts[1]


@SIZES
def test_accumulated_gradients_are_those_of_the_parts(k):
    net = network(k=k)
    parts = batches(2)
    expected = []
    for part in parts:
        net.zero_grad()
        net(part).square().mean().backward()
        expected.append(net[1].dw.weight.grad.clone())
    net.zero_grad()
    for part in parts:
        net(part).square().mean().backward()
    torch.testing.assert_close(net[1].dw.weight.grad, sum(expected))


@SIZES
def test_no_synchronization_with_a_device_in_the_forward_pass(k, monkeypatch):
    """What CUDA graphs need: no number is read back from a tensor."""
    for name in ('item', '__bool__', '__int__', '__float__', 'tolist', 'cpu'):
        monkeypatch.setattr(
            torch.Tensor, name, lambda *a, name=name: pytest.fail(f'{name} was read')
        )
    net = network(k=k)
    for training in (True, False):
        net.train(training)(batches()[0])
    assert any(isinstance(m, EnhancedNorm) for m in net)
