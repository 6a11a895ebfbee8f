from __future__ import annotations

import pytest
import torch
from torch import nn

from bnet_mm import BNET
from bnet_mm.layers import BNControl
from bnet_study.arms import DepthwiseNorm, ReplicatedBorder, apply_arm, parameter_groups
from bnet_study.nets import ResNet
from bnet_study.plan import ARM

SHAPES = {'basic': ('bn2', 6), 'bottleneck': ('bn3', 6)}


def net(block: str, **arm) -> nn.Module:
    torch.manual_seed(0)
    return apply_arm(ResNet(block, (2, 2, 2), 4, 'cifar'), {**ARM, **arm}).eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('block', SHAPES)
@pytest.mark.parametrize('k', [3, 5])
def test_bnet_starts_as_batch_norm(block, k, x):
    place, number = SHAPES[block]
    enhanced = net(block, norm='bnet', k=k)
    found = [name for name, m in enhanced.named_modules() if isinstance(m, BNET)]
    assert len(found) == number and all(name.endswith(place) for name in found)
    torch.testing.assert_close(enhanced(x), net(block)(x))


@pytest.mark.parametrize('block', SHAPES)
@pytest.mark.parametrize(('norm', 'kind'), [('control', BNControl), ('depthwise', DepthwiseNorm)])
def test_controls_stand_where_bnet_does_with_its_parameters(block, norm, kind, x):
    place, number = SHAPES[block]
    control, bnet, plain = net(block, norm=norm), net(block, norm='bnet'), net(block)
    found = [name for name, m in control.named_modules() if isinstance(m, kind)]
    assert len(found) == number and all(name.endswith(place) for name in found)
    counts = [sum(p.numel() for p in n.parameters()) for n in (control, bnet, plain)]
    channels = sum(m.num_features for m in bnet.modules() if isinstance(m, BNET))
    # BNET: k * k and a bias; the others a scale, and the control a shift as well, besides.
    assert counts[1] - counts[2] == 8 * channels
    assert counts[0] - counts[1] == channels * (2 if norm == 'control' else 1)
    shared = plain.state_dict()
    same = {k: v for k, v in control.state_dict().items() if k in shared}
    assert len(same) > 20 and all(torch.equal(v, shared[k]) for k, v in same.items())
    assert not torch.allclose(control(x), plain(x))


def test_other_starts_of_the_kernel(x):
    zero, kaiming = (
        net('basic', norm='bnet', kernel='zero'),
        net('basic', norm='bnet', kernel='kaiming'),
    )
    layers = [m for m in zero.modules() if isinstance(m, BNET)]
    assert layers and not any(m.dw.weight.any() for m in layers)
    weight = torch.cat([m.dw.weight.flatten() * m.num_features**0.5 for m in kaiming.modules()
                        if isinstance(m, BNET)])  # fmt: skip
    assert weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.15)


def test_replicated_borders_differ_at_the_border_alone():
    torch.manual_seed(0)
    layer = BNET(4, k=5).eval()
    nn.init.normal_(layer.dw.weight)
    x = torch.randn(2, 4, 12, 12)
    ours, theirs = ReplicatedBorder(layer)(x), layer(x)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2])
    assert not torch.allclose(ours[..., 0, :], theirs[..., 0, :])
    flat = torch.ones(1, 4, 6, 6)
    assert ReplicatedBorder(layer)(flat).var((2, 3)).max() < 1e-10 < layer(flat).var((2, 3)).max()


def test_kernels_are_a_group_of_their_own():
    network = net('basic', norm='bnet')
    groups = parameter_groups(network, dict(kernel_lr=10, kernel_decay=0), 5e-4)
    assert [(g['factor'], g['weight_decay']) for g in groups] == [(1.0, 5e-4), (10, 0)]
    assert len(groups[1]['params']) == 6
    every = [id(p) for g in groups for p in g['params']]
    assert sorted(every) == sorted(map(id, network.parameters()))
    assert len(parameter_groups(net('basic'), {}, 5e-4)) == 1
