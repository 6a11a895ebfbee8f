"""Checkpoints of any network, fitted to a model: plain norms to BNET and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from bnet_mm import enhance
from bnet_mm.checkpoint import fit
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET

NETWORKS = ['mobilenet_v2', 'regnet_y_400mf', 'efficientnet_b0', 'resnet18', 'shufflenet_v2_x0_5']


def trained(name):
    """A network whose norms are those of no initialization."""
    torch.manual_seed(0)
    network = getattr(models, name)(num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.double().eval()


@pytest.mark.parametrize('name', NETWORKS)
@torch.no_grad()
def test_there_and_back(name):
    plain = trained(name)
    enhanced = enhance(getattr(models, name)(num_classes=7), k=5).double().eval()
    assert any(isinstance(module, BNET) for module in enhanced.modules())
    there = fit(plain.state_dict(), enhanced)
    assert set(there.kernels.values()) == {5} and there.left == []
    enhanced.load_state_dict(there.state)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(enhanced(images), plain(images))

    back = fit(there.state, getattr(models, name)(num_classes=7))
    assert back.kernels == {}
    for key, value in plain.state_dict().items():
        assert torch.equal(back.state[key], value), key


def test_kernels_get_a_border_and_lose_an_empty_one():
    small, large = (enhance(models.mobilenet_v2(), k=k) for k in (3, 5))
    grown = fit(small.state_dict(), large).state
    assert grown['features.2.conv.0.1.dw.weight'].shape[-1] == 5
    again = fit(grown, small).state
    assert all(torch.equal(again[key], value) for key, value in small.state_dict().items())
    nn.init.ones_(large.features[2].conv[0][1].dw.weight)
    with pytest.raises(InputError, match='outer taps are not zero'):
        fit(large.state_dict(), small)
    with pytest.raises(InputError, match='outer taps are not zero'):
        fit(large.state_dict(), models.mobilenet_v2())


def test_one_network_below_a_prefix_is_found_and_of_two_one_is_chosen():
    model = enhance(models.mobilenet_v2(), k=3)
    plain = models.mobilenet_v2().state_dict()
    one = {f'net.encoder.{key}': value for key, value in plain.items()}
    found = fit({**one, 'net.decoder.weight': torch.zeros(1)}, model)
    assert found.prefix == 'net.encoder.' and found.left == ['net.decoder.weight']
    two = {**one, **{f'net.momentum.{key}': value for key, value in plain.items()}}
    with pytest.raises(InputError, match=r"below 'net\.encoder\.' and below 'net\.momentum\.'"):
        fit(two, model)


def test_what_is_not_the_network_is_said():
    model = enhance(models.mobilenet_v2(), k=3)
    with pytest.raises(InputError, match='no tensor of this MobileNetV2'):
        fit({'a.weight': torch.zeros(1)}, model)
    state = models.mobilenet_v2().state_dict()
    with pytest.raises(InputError, match=r'classifier\.1\.weight has the shape \(1000, 1280\)'):
        fit(state, enhance(models.mobilenet_v2(num_classes=3), k=3))
    del state['features.3.conv.0.0.weight']
    with pytest.raises(InputError, match=r'lacks 1 of \d+ .*features\.3\.conv\.0\.0\.weight'):
        fit(state, model)
    dilated = enhance(models.mobilenet_v2(), k=3, dilation=2).state_dict()
    with pytest.raises(InputError, match='dilation 2'):
        fit(dilated, model)
