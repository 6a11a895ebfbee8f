"""Funnel activations against their definition, and in the networks they are placed in."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn

import bnet_mm
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET
from bnet_mm.models.funnel import FReLU, replace_relus


def reference(x, act, training):
    """max(x, T(x)), from loops over the taps and the batch's or the running statistics."""
    k = act.conv.kernel_size[0]
    padded = torch.nn.functional.pad(x, (k // 2,) * 4)
    h, w = x.shape[2:]
    t = sum(
        act.conv.weight[:, 0, i, j, None, None] * padded[:, :, i : i + h, j : j + w]
        for i in range(k)
        for j in range(k)
    )
    mean, var = act.bn.running_mean, act.bn.running_var
    if training:
        mean, var = t.mean((0, 2, 3)), t.var((0, 2, 3), correction=0)
    shape = (1, -1, 1, 1)
    t = (t - mean.view(shape)) / (var.view(shape) + act.bn.eps).sqrt()
    t = t * act.bn.weight.view(shape) + act.bn.bias.view(shape)
    return torch.where(x > t, x, t)


@pytest.mark.parametrize('k', [3, 5])
def test_is_its_definition_with_gradients_and_statistics(k):
    torch.manual_seed(0)
    act = FReLU(3, k).double()
    for weight in act.parameters():
        nn.init.normal_(weight)
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(x)
    for training in (True, False):
        act.train(training)
        wanted = [x, *act.parameters()]
        expected = reference(x, act, training)
        expected_grads = torch.autograd.grad(expected, wanted, g)
        got = act(x)
        torch.testing.assert_close(got, expected)
        for ours, theirs in zip(torch.autograd.grad(got, wanted, g), expected_grads):
            torch.testing.assert_close(ours, theirs)
    assert act.bn.num_batches_tracked == 1 and act.bn.running_mean.any()


@pytest.mark.parametrize(('arch', 'activations'), [('resnet18', 17), ('resnet50', 49)])
def test_every_relu_of_a_network_has_one_of_its_own(arch, activations):
    torch.manual_seed(0)
    model = replace_relus(torchvision.models.get_model(arch))
    acts = [m for m in model.modules() if isinstance(m, FReLU)]
    assert len(acts) == activations == len({id(a) for a in acts})
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    called = []
    for act in acts:
        act.register_forward_hook(lambda m, i, o: called.append(m))
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert sorted(map(id, called)) == sorted(map(id, acts))
    assert all(p.grad is not None for p in model.parameters())


def test_is_relu_where_its_condition_is_zero_also_with_bnet_copied_and_pickled():
    torch.manual_seed(0)
    plain = torchvision.models.resnet18().eval()
    model = replace_relus(bnet_mm.enhance(copy.deepcopy(plain), 3)).eval()
    for module in model.modules():
        if isinstance(module, FReLU):
            nn.init.zeros_(module.bn.weight)
    assert sum(isinstance(m, BNET) for m in model.modules()) == 8
    x = torch.randn(2, 3, 64, 64)
    for copied in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(copied(x), plain(x), rtol=1e-4, atol=1e-4)
    # A copy's forward is of the copy's own modules.
    copied = copy.deepcopy(model)
    nn.init.ones_(copied.layer1[0].frelu1.bn.bias)
    assert not torch.allclose(copied(x), model(x))


def test_other_networks_are_refused_by_name():
    for arch, sentence in (
        ('mobilenet_v2', 'InvertedResidual has a forward'),
        ('vgg11', 'not a ResNet'),
    ):
        with pytest.raises(InputError, match=sentence):
            replace_relus(torchvision.models.get_model(arch))
    model = torchvision.models.resnet18()
    model.layer4[1].relu = nn.GELU()
    with pytest.raises(InputError, match=r'layer4\.1: it does not end in a ReLU'):
        replace_relus(model)
    assert isinstance(model.layer1[0].relu, nn.ReLU)
