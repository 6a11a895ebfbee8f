"""What kernels learnt, against kernels that are known; and the field of a network that is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from bnet_mm.analysis.learnt_kernels import learnt_kernels, receptive_field
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET

ROOT = Path(__file__).resolve().parents[2]


def test_known_kernels():
    model = nn.ModuleDict({'layer1': nn.ModuleList([BNET(4, k=3)]), 'head': BNET(2, k=5)})
    with torch.no_grad():
        model['head'].dw.weight.fill_(1.0)
    dirac, box = learnt_kernels(model)
    assert (dirac.layer, dirac.stage, dirac.k, dirac.channels) == ('layer1.0', 'layer1', 3, 4)
    assert dirac.outside == dirac.distance == 0
    assert dirac.profile == dirac.mean == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert (box.stage, box.k) == ('', 5)
    assert box.outside == pytest.approx(24 / 25)
    assert box.distance == pytest.approx(math.sqrt(24))
    assert torch.allclose(torch.tensor(box.profile), torch.full((5, 5), 1 / 25))
    with torch.no_grad():
        model['head'].dw.weight[0] *= -3.0
    mixed = learnt_kernels(model)[1]
    assert mixed.mean == [[-1.0] * 5] * 5 and mixed.profile == box.profile


@pytest.mark.parametrize(('k', 'side'), [(1, 1), (3, 3), (5, 5)])
def test_the_field_of_a_kernel_is_the_kernel(k, side):
    layer = BNET(3, k=k).eval()
    with torch.no_grad():
        layer.dw.weight.fill_(1.0)
    found = receptive_field(nn.Sequential(layer), size=32)
    expected = torch.zeros(32, 32, dtype=torch.float64)
    r = k // 2
    expected[16 - r : 17 + r, 16 - r : 17 + r] = 1
    torch.testing.assert_close(found.field, expected)
    # The smallest number of pixels that has 95 % of the energy of k*k equal ones.
    assert found.size == pytest.approx(math.sqrt(math.ceil(0.95 * side**2)))


def test_the_field_is_of_as_many_channels_as_the_network_takes():
    found = receptive_field(nn.Sequential(nn.Conv2d(4, 2, 3, padding=1)), size=32)
    assert found.field.shape == (32, 32) and (found.field > 0).sum() == 9


def test_networks_without_a_map_or_a_gradient_are_named():
    with pytest.raises(InputError, match='Sequential gives no map'):
        receptive_field(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(1800, 2)), 32)
    conv = nn.Conv2d(3, 2, 3)
    nn.init.constant_(conv.weight, float('nan'))
    with pytest.raises(InputError, match='of a training that diverged'):
        receptive_field(nn.Sequential(conv), 32)
    with pytest.raises(InputError, match=r'cannot run on an image of 2x2.*--size'):
        receptive_field(nn.Sequential(conv), 2)
    nn.init.zeros_(conv.weight)
    with pytest.raises(InputError, match='last map does not depend on the image'):
        receptive_field(nn.Sequential(conv), 32)


def test_the_tool(call_tool, tmp_path):
    from bnet_mm.engine.config import load_config
    from bnet_mm.openmmlab.models import build_model

    bnet = ROOT / 'configs/demo/resnet18_bnet3_demo.py'
    bn = ROOT / 'configs/resnet18_bn_100e_in1k.py'
    for name, config in (('bnet', bnet), ('bn', bn)):
        torch.manual_seed(0)
        model = build_model(load_config(config))
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / f'{name}.pth')
    pairs = (bnet, tmp_path / 'bnet.pth', bn, tmp_path / 'bn.pth', '--size', 64)
    shown = call_tool('analyze.py', 'kernels', *pairs, check=True).stdout
    assert 'mean of backbone.layer4' in shown and 'field of resnet18_bn_100e_in1k' in shown
    with Image.open(tmp_path / 'kernels.png') as sheet:
        assert sheet.size[0] > 1000
    found = json.loads(call_tool('analyze.py', 'kernels', *pairs, '--json', check=True).stdout)
    enhanced, plain = found['resnet18_bnet3_demo'], found['resnet18_bn_100e_in1k']
    assert [len(model['kernels']) for model in (enhanced, plain)] == [8, 0]
    # Kernels at Dirac: the same network as with BN.
    assert enhanced['receptive_field_size'] == pytest.approx(plain['receptive_field_size'])
    for args, sentence in (
        ((bnet,), 'models are pairs of CONFIG'),
        ((bn, tmp_path / 'bn.pth'), 'there is no BNET'),
    ):
        wrong = call_tool('analyze.py', 'kernels', *args)
        assert wrong.returncode == 2 and sentence in wrong.stderr
