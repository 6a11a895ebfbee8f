"""What programs do to every batch norm of a model, they do to a BNET, and it means the same."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from bnet_mm import enhance
from bnet_mm.layers import BNET, GNET, INET, SNET, SyncBNET

LAYERS = {
    'BNET': lambda: BNET(4, k=5),
    'SyncBNET': lambda: SyncBNET(4, k=3),
    'GNET': lambda: GNET(4, k=3, num_groups=2),
    'INET': lambda: INET(4, k=3),
    'SNET': lambda: SNET(4, k=3),
}
EACH_LAYER = pytest.mark.parametrize('kind', LAYERS)


def plain_and_enhanced() -> tuple[nn.Module, nn.Module]:
    plain = torchvision.models.resnet18(num_classes=4)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    return plain, enhance(copy.deepcopy(plain), k=3, positions='all')


def initialize(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.constant_(m.weight, 1)
            nn.init.constant_(m.bias, 0)


def initialize_by_name(model):
    def weights_init(m):
        if m.__class__.__name__.find('BatchNorm') != -1:
            m.weight.data.fill_(0.5)
            m.bias.data.fill_(0.25)

    model.apply(weights_init)


def zero(model):
    for m in model.modules():
        if isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.zeros_(m.weight)


def scale_data(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight.data.mul_(0.5)


def assign(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.weight = nn.Parameter(torch.full_like(m.weight, 0.3))


def prune_small(model):
    scores = torch.cat([m.weight.abs() for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    threshold = scores.detach().quantile(0.5)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            mask = m.weight.data.abs().gt(threshold).float()
            m.weight.data.mul_(mask)
            m.bias.data.mul_(mask)


def freeze(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
            m.weight.requires_grad = False
            m.bias.requires_grad_(False)


@pytest.mark.parametrize(
    'walk', [initialize, initialize_by_name, zero, scale_data, assign, prune_small, freeze]
)
def test_a_walk_means_what_it_means_for_batch_norm(walk):
    plain, enhanced = plain_and_enhanced()
    names = list(enhanced.state_dict())
    for model in (plain, enhanced):
        model.train()
        walk(model)
    x = torch.randn(2, 3, 64, 64)
    # Through nine maps of two images the rounding of the two orders of summation grows.
    torch.testing.assert_close(enhanced(x), plain(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(enhanced.eval()(x), plain.eval()(x), rtol=1e-3, atol=1e-3)
    assert list(enhanced.state_dict()) == names
    trained = {name for name, p in plain.named_parameters() if p.requires_grad}
    for name, p in enhanced.named_parameters():
        assert p.requires_grad == (name.replace('.dw.', '.') in trained), name


def test_sparsity_reaches_the_centre_taps():
    layer = BNET(4, k=3)
    layer(torch.randn(2, 4, 5, 5)).square().mean().backward()
    before = layer.dw.weight.grad.clone()
    layer.norm.weight.grad.data.add_(0.1 * torch.sign(layer.norm.weight.data))
    assert torch.equal(layer.dw.weight.grad[:, 0, 1, 1], before[:, 0, 1, 1] + 0.1)
    layer.zero_grad()
    layer.norm.weight.abs().sum().backward()
    expected = torch.zeros(4, 1, 3, 3)
    expected[:, 0, 1, 1] = 1
    assert torch.equal(layer.dw.weight.grad, expected)


def by_class_and_parameter(model):
    decayed, not_decayed, biases = [], [], []
    for module in model.modules():
        if hasattr(module, 'bias') and isinstance(module.bias, nn.Parameter):
            biases.append(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            not_decayed.append(module.weight)
        elif hasattr(module, 'weight') and isinstance(module.weight, nn.Parameter):
            decayed.append(module.weight)
    return decayed, not_decayed, biases


def by_named_parameters(model):
    norms = tuple(v for k, v in nn.__dict__.items() if 'Norm' in k)
    groups = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            place = 2 if name == 'bias' else 1 if isinstance(module, norms) else 0
            groups[place].append(parameter)
    return groups


@pytest.mark.parametrize('groups_of', [by_class_and_parameter, by_named_parameters])
def test_optimizer_groups_hold_every_parameter_once_and_train_it(groups_of):
    _, model = plain_and_enhanced()
    groups = groups_of(model)
    optimizer = torch.optim.SGD([dict(params=group) for group in groups], lr=0.1)
    held = [id(p) for group in optimizer.param_groups for p in group['params']]
    assert len(set(held)) == len(held)
    assert {id(p) for p in model.parameters()} <= set(held)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    optimizer.step()
    for name, p in model.named_parameters():  # once: not a centre tap twice
        torch.testing.assert_close(p.detach(), before[name] - 0.1 * p.grad)


@EACH_LAYER
def test_every_norm_of_the_family_shows_its_scale_and_shift(kind):
    layer = LAYERS[kind]()
    norms = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
    for module in layer.modules():
        if isinstance(module, norms):
            nn.init.constant_(module.weight, 0)
            nn.init.constant_(module.bias, 2)
    assert not layer.dw.weight.any()
    assert layer.bias.tolist() == layer.dw.bias.tolist() == [2, 2, 2, 2]
    layer.weight = torch.arange(4.0)
    assert layer.dw.weight.sum((1, 2, 3)).tolist() == layer.weight.tolist() == [0, 1, 2, 3]
    assert not any(isinstance(t, nn.Parameter) for t in (layer.weight, layer.bias))


@EACH_LAYER
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    'treat',
    [
        lambda model, x: torch.fx.symbolic_trace(model),
        lambda model, x: copy.deepcopy(model),
        lambda model, x: pickle.loads(pickle.dumps(model)),
    ],
    ids=['fx', 'deepcopy', 'pickle'],
)
def test_treated_layers_compute_the_same_in_both_modes(kind, training, treat):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), LAYERS[kind](), nn.ReLU())
    nn.init.normal_(model[1].dw.weight)
    x = torch.randn(2, 3, 8, 8)
    treated = treat(copy.deepcopy(model), x).train(training)
    torch.testing.assert_close(treated(x), model.train(training)(x))
    torch.testing.assert_close(treated.state_dict(), model.state_dict())
    treated.eval()  # a graph that was traced in training is not caught in it
    torch.testing.assert_close(treated(x), model.eval()(x))
    treated.get_submodule('1').weight = torch.zeros(4)
    assert model[1].weight.any()  # a copy shows its own scale


@pytest.mark.parametrize('kind', ['BNET', 'SyncBNET', 'GNET', 'SNET', 'INET'])
def test_scripts(kind):
    layer = LAYERS[kind]().eval()
    nn.init.normal_(layer.dw.weight)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))


@EACH_LAYER
def test_a_layer_that_is_itself_traced_is_its_two_steps(kind):
    layer = LAYERS[kind]().eval()
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(torch.fx.symbolic_trace(layer)(x), layer(x))


def test_features_are_extracted_by_name():
    from torchvision.models.feature_extraction import create_feature_extractor

    _, model = plain_and_enhanced()
    x = torch.randn(1, 3, 64, 64)
    kept = []
    model.eval().layer2[1].bn2.register_forward_hook(lambda *args: kept.append(args[2].clone()))
    features = create_feature_extractor(model, ['layer2.1.bn2'])(x)['layer2.1.bn2']
    model(x)
    torch.testing.assert_close(features, kept[-1])


@pytest.mark.parametrize(
    ('build', 'size'),
    [
        (partial(torchvision.models.resnet18, zero_init_residual=True), 64),
        (torchvision.models.mobilenet_v2, 64),
        (torchvision.models.efficientnet_b0, 64),
        (partial(timm.create_model, 'resnet18'), 64),
    ],
    ids=['resnet18', 'mobilenet_v2', 'efficientnet_b0', 'timm_resnet18'],
)
def test_norm_layer_builds_and_trains(build, size):
    model = build(norm_layer=partial(BNET, k=3))
    x = torch.randn(2, 3, size, size)
    model(x).square().mean().backward()
    layers = [m for m in model.modules() if isinstance(m, BNET)]
    centres = torch.cat([m.weight.detach() for m in layers])
    assert set(centres.tolist()) <= {0.0, 1.0}  # as the libraries initialize batch norms
    assert torch.equal(
        torch.cat([m.dw.weight.detach().abs().sum((1, 2, 3)) for m in layers]), centres
    )
    assert all(p.grad is not None for m in layers for p in m.dw.parameters())


def test_gradients_through_a_replica_of_data_parallel():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), BNET(4, k=3))
    replica = model[1]._replicate_for_data_parallel()
    for name, child in model[1]._modules.items():
        copied = child._replicate_for_data_parallel()
        for key, parameter in child._parameters.items():
            if parameter is not None:
                setattr(copied, key, parameter * 2)
        for key, buffer in child._buffers.items():
            setattr(copied, key, buffer.clone())
        setattr(replica, name, copied)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(replica(x), 2 * model[1](x))
    assert torch.equal(replica.norm.weight.detach(), 2 * model[1].norm.weight.detach())
