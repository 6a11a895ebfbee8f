"""Which layers are looked at: by stage, by name, in backbones and outside of them."""

from __future__ import annotations

import pytest
import torchvision
from torch import nn

import bnet_mm
from bnet_mm.analysis.layers import chosen_layers, last_blocks, stage_of
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET


class Detector(nn.Module):
    """A model with a backbone, and a head that has a stage of its own, as C4 detectors have."""

    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.resnet18(num_classes=3)
        self.head = nn.Module()
        self.head.layer4 = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Identity())


def test_stages_as_networks_call_them():
    assert stage_of('backbone.layer3.22.bn3') == stage_of('backbone.layer3') == 'backbone.layer3'
    assert stage_of('layer1.0') == 'layer1'
    assert stage_of('backbone.stage4.0.branches.1.0.bn1') == 'backbone.stage4'
    assert stage_of('backbone.stages.2.1.norm') == 'backbone.stages.2'
    assert stage_of('backbone.bn1') == stage_of('neck.multilayer1.x') == ''


def test_bnets_by_stage_or_name():
    model = Detector()
    with pytest.raises(InputError, match='Detector has no BNET'):
        chosen_layers(model)
    model.head.bn = BNET(3)
    assert chosen_layers(model) == ['head.bn']
    bnet_mm.enhance(model.backbone, 3)
    assert chosen_layers(model) == [f'backbone.layer{i}.1.bn2' for i in range(1, 5)]
    everywhere = Detector()
    bnet_mm.enhance(everywhere.backbone, 3, positions='all')
    assert chosen_layers(everywhere) == [f'backbone.layer{i}.1.bn2' for i in range(1, 5)]
    everywhere.backbone.layer2 = everywhere.backbone.layer2[:1]  # bn2, and then its shortcut's norm
    assert chosen_layers(everywhere)[1] == 'backbone.layer2.0.bn2'
    assert chosen_layers(model, ['layer2.0.bn2', 'head.bn']) == [
        'backbone.layer2.0.bn2',
        'head.bn',
    ]
    with pytest.raises(InputError, match=r'no BNET is called layer9\.0\.bn2; there are backbone'):
        chosen_layers(model, ['layer9.0.bn2'])
    with pytest.raises(InputError, match=r'4 BNETs have names that end in 0\.bn2'):
        chosen_layers(model, ['0.bn2'])


def test_blocks_by_stage_or_name():
    model = Detector()
    assert last_blocks(model) == [f'backbone.layer{i}.1' for i in range(1, 5)]
    assert last_blocks(model, ['backbone.layer1', 'head.layer4.0']) == [
        'backbone.layer1',
        'head.layer4.0',
    ]
    with pytest.raises(InputError, match='no module is called layer9'):
        last_blocks(model, ['layer9'])
    with pytest.raises(InputError, match='2 modules have names that end in layer4'):
        last_blocks(model, ['layer4'])
    with pytest.raises(InputError, match='no stages called layer1'):
        last_blocks(nn.Sequential(nn.Conv2d(3, 2, 3)))
