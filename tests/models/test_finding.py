"""Residual blocks are found by what they compute, in networks of any library and in one's own."""

from __future__ import annotations

from collections import Counter

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from bnet_mm import enhance
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.models import finding, placement
from bnet_mm.models.blocks import INVERTED, block_kind, norm_after_conv, positions_of
from bnet_mm.models.finding import find_blocks

# By library and network: the number of blocks, and where the first one has BNET.
NETWORKS = {
    ('torchvision', 'resnext50_32x4d'): (16, 'layer1.0.bn3'),
    ('torchvision', 'mobilenet_v2'): (17, 'features.2.conv.0.1'),
    ('torchvision', 'mnasnet0_5'): (16, 'layers.8.0.layers.1'),
    ('torchvision', 'efficientnet_b0'): (16, 'features.2.0.block.0.1'),
    ('torchvision', 'regnet_y_400mf'): (16, 'trunk_output.block1.block1-0.f.c.1'),
    ('torchvision', 'vgg11_bn'): (0, None),
    ('torchvision', 'densenet121'): (0, None),
    ('torchvision', 'shufflenet_v2_x1_0'): (0, None),
    ('timm', 'resnetaa50d'): (16, 'layer1.0.bn3'),
    ('timm', 'resnest14d'): (4, 'layer1.0.bn3'),
    ('timm', 'res2net50_14w_8s'): (16, 'layer1.0.bn3'),
    ('timm', 'skresnet18'): (8, 'layer1.0.conv2.bn'),
    ('timm', 'ecaresnet26t'): (8, 'layer1.0.bn3'),
    ('timm', 'tresnet_m'): (21, 'body.layer1.0.conv2.bn'),
    ('timm', 'regnety_002'): (13, 's1.b1.conv3.bn'),
    ('timm', 'gernet_s'): (14, 'stages.0.0.conv2_kxk.bn'),
    ('timm', 'hrnet_w18_small'): (23, 'layer1.0.bn3'),
    ('timm', 'dla34'): (12, 'level2.tree1.bn2'),
    ('timm', 'cspresnet50'): (13, 'stages.0.blocks.0.conv3.bn'),
    ('timm', 'cspdarknet53'): (23, 'stages.0.blocks.0.conv2.bn'),
    ('timm', 'xception41'): (12, 'blocks.0.stack.conv3.bn_pw'),
    ('timm', 'convmixer_768_32'): (32, 'blocks.0.0.fn.2'),
    ('timm', 'mobilenetv2_050'): (16, 'blocks.1.0.bn1'),
    ('timm', 'mixnet_s'): (16, 'blocks.0.0.bn2'),
    ('timm', 'mobilenetv4_conv_small'): (12, 'blocks.2.0.pw_exp.bn'),
    ('timm', 'fbnetc_100'): (21, 'blocks.0.0.bn1'),
    ('timm', 'efficientformer_l1'): (14, 'stages.0.blocks.0.mlp.norm1'),
    ('timm', 'botnet26t_256'): (8, 'stages.0.0.conv3_1x1.bn'),
    ('timm', 'repvgg_a0'): (0, None),
    ('timm', 'vovnet39a'): (0, None),
    ('timm', 'resnetv2_50'): (16, None),  # normalized before each convolution
    ('timm', 'convnext_atto'): (12, None),  # by a layer norm
}


def build(library: str, name: str) -> nn.Module:
    if library == 'timm':
        return timm.create_model(name)
    return torchvision.models.get_model(name)


@pytest.mark.parametrize(('library', 'name'), NETWORKS)
def test_networks(library, name):
    if library == 'timm' and name not in timm.list_models():
        pytest.skip('this timm has no such model')
    blocks = find_blocks(build(library, name))
    places = [block.norms[block.papers] for block in blocks if block.papers in block.norms]
    assert (len(blocks), places[0] if places else None) == NETWORKS[library, name]


@pytest.mark.parametrize('name', ['resnet18', 'resnet50', 'mobilenet_v2', 'mobilenet_v3_small'])
def test_agrees_with_the_table_of_known_classes(name, monkeypatch):
    model = torchvision.models.get_model(name)
    monkeypatch.setattr(finding, 'is_known', lambda module: False)
    found = {block.name: block for block in find_blocks(model)}
    for prefix, module in model.named_modules():
        kind = block_kind(module)
        assert (kind is not None) == (prefix in found)
        if kind is not None:
            block = found[prefix]
            named = {
                letter: f'{prefix}.{norm_after_conv(module, index)[0]}'
                for letter, index in positions_of(module).items()
                if norm_after_conv(module, index)[1] is not None
            }
            assert (block.inverted, block.norms) == (kind == INVERTED, named)


def conv(c: int, out: int | None = None, k: int = 3, **kwargs) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c, out or c, k, padding=k // 2, **kwargs), nn.BatchNorm2d(out or c), nn.ReLU()
    )


class Named(nn.Module):
    """A residual block under names that nobody knows."""

    def __init__(self, c: int, out: int | None = None):
        super().__init__()
        self.eins, self.zwei = conv(c, out), conv(out or c)
        self.quer = nn.Conv2d(c, out, 1) if out else nn.Identity()

    def forward(self, x):
        return F.relu(self.quer(x).add_(self.zwei(self.eins(x))))


class Activated(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fn = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.GELU(), nn.BatchNorm2d(c))

    def forward(self, x):
        return x + self.fn(x)


class Gated(nn.Module):
    """Squeeze and excitation, a layer scale and dropping behind the last norm."""

    def __init__(self, c):
        super().__init__()
        self.body = nn.Sequential(conv(c), nn.Conv2d(c, c, 1), nn.BatchNorm2d(c))
        self.gate = nn.Sequential(nn.Conv2d(c, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, c, 1))
        self.scale = nn.Parameter(torch.ones(c, 1, 1))

    def forward(self, x):
        y = self.body(x)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        return x + F.dropout(y * self.scale, 0.1, self.training)


class Preactivated(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1),
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x)


class Pyramid(nn.Module):
    """Sums of maps that come from outside."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b = conv(c), conv(c)

    def forward(self, maps):
        return [self.a(maps[0]) + self.b(maps[1]), maps[1]]


class Decoder(nn.Module):
    """A sum of a map and what the whole network made of it, and then more."""

    def __init__(self, c):
        super().__init__()
        self.down, self.up, self.end = conv(c, stride=2), conv(c), conv(c)

    def forward(self, x):
        return self.end(x + F.interpolate(self.up(self.down(x)), x.shape[2:]))


class Splits(nn.Module):
    """Res2Net's sum of parts of one tensor."""

    def __init__(self, c):
        super().__init__()
        self.a = conv(c // 2)

    def forward(self, x):
        first, second = x.chunk(2, 1)
        return self.a(first) + second


class SideBySide(nn.Module):
    """RepVGG's branches."""

    def __init__(self, c):
        super().__init__()
        self.a, self.b, self.c = conv(c)[:2], conv(c, k=1)[:2], nn.BatchNorm2d(c)

    def forward(self, x):
        return F.relu(self.a(x) + self.b(x) + self.c(x))


class Hourglass(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.up, self.low = Named(c), nn.Sequential(nn.MaxPool2d(2), Named(c), nn.Upsample(None, 2))

    def forward(self, x):
        return self.up(x) + self.low(x)


class Inverted(nn.Module):
    def __init__(self, c, stride=1, expand=4):
        super().__init__()
        wide = c * expand
        first = [conv(c, wide, 1)] if expand > 1 else []
        self.layers = nn.Sequential(
            *first, conv(wide, groups=wide, stride=stride), conv(wide, c, 1)[:2]
        )
        self.stride = stride

    def forward(self, x):
        return x + self.layers(x) if self.stride == 1 else self.layers(x)


@pytest.mark.parametrize(
    ('module', 'places'),
    [
        (Named(8), {'C': 'zwei.1', 'A': 'eins.1'}),
        (Named(8, 16), {'C': 'zwei.1', 'A': 'eins.1'}),
        (Activated(8), {'C': 'fn.2'}),
        (Gated(8), {'C': 'body.2', 'A': 'body.0.1'}),
        (Preactivated(8), {'A': 'body.3'}),
        (Inverted(8), {'A': 'layers.0.1', 'B': 'layers.1.1', 'C': 'layers.2.1'}),
        (Pyramid(8), None),
        (Decoder(8), None),
        (Splits(8), None),
        (SideBySide(8), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else '',
)
def test_own_blocks(module, places):
    training = module.training
    found = find_blocks(module)
    assert module.training == training
    assert [block.norms for block in found] == ([] if places is None else [places])


def test_of_nested_sums_the_innermost_count():
    assert [block.name for block in find_blocks(Hourglass(8))] == ['up', 'low.1']


def test_inverted_blocks_without_a_shortcut_count_where_others_of_their_class_do():
    model = nn.Sequential(Inverted(8), Inverted(8, stride=2), Inverted(8, expand=1))
    papers = [block.norms.get(block.papers) for block in find_blocks(model)]
    assert papers == ['0.layers.0.1', '1.layers.0.1', None]
    assert not find_blocks(nn.Sequential(Inverted(8, stride=2), Inverted(8, stride=2)))


def test_a_place_that_no_block_has_is_an_error_and_not_silence(monkeypatch):
    model = nn.Sequential(Inverted(8), Inverted(8, expand=1))
    blocks = [block for block in find_blocks(model) if block.unexpanded]
    assert len(blocks) == 1
    monkeypatch.setattr(placement, 'find_blocks', lambda model, unknown: blocks)
    with pytest.raises(InputError, match='1 of its 1 residual blocks have no norm there'):
        enhance(model, 3)


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('resnetv2_50', r'16 of its 16 residual blocks have no norm there.*a \w+, for one'),
        ('convnext_atto', r'it has no norm over maps of \(N, C, H, W\)'),
    ],
)
def test_networks_without_a_place_are_refused(name, sentence):
    with pytest.raises(InputError, match=sentence):
        enhance(timm.create_model(name), 3)


def test_a_network_without_residual_blocks_gets_every_norm_and_a_line():
    model = torchvision.models.vgg11_bn().eval()
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    with pytest.warns(UserWarning, match='VGG has no residual blocks: all 8 norms are BNET'):
        enhance(model, 3)
    assert Counter(type(norm).__name__ for _, norm in named_norms(model)) == {'BNET': 8}
    torch.testing.assert_close(model(x), expected)


def test_norms_with_an_activation_keep_it():
    model = timm.create_model('efficientnet_b0').eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(2, 3, 64, 64)
    expected, names = model(x), set(model.state_dict())
    enhance(model, 3)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert len(list(named_norms(model, EnhancedNorm))) == 15
    model.train()(x).sum().backward()
    plain = timm.create_model('efficientnet_b0').state_dict()
    assert set(plain) == names
    model.load_state_dict(plain)


def test_frozen_batch_norms_keep_their_statistics_and_learn_kernels():
    make = torchvision.models.detection.backbone_utils.resnet_fpn_backbone
    model = make(backbone_name='resnet50', weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    expected, state = model(x)['0'], model.state_dict()
    enhance(model, 3)
    torch.testing.assert_close(model(x)['0'], expected, rtol=1e-4, atol=1e-4)
    norms = [norm for _, norm in named_norms(model, EnhancedNorm)]
    model.train()
    model(x)['0'].sum().backward()
    assert len(norms) == 16 and not any(norm.norm.training for norm in norms)
    assert norms[0].dw.weight.grad.any() and not norms[0].norm.running_mean.any()
    model.load_state_dict(state)


def test_a_block_that_is_registered_twice_is_found_once():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

        def forward(self, x):
            return torch.relu(x + self.norm(self.conv(x)))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = Block()
            self.skips = nn.ModuleDict(dict(first=self.stem, second=nn.ModuleList([self.stem])))

        def forward(self, x):
            return self.stem(x)

    network = Network()
    assert [block.name for block in find_blocks(network)] == ['stem']
    enhance(network, k=3)
    assert isinstance(network.skips['first'].norm, EnhancedNorm)
