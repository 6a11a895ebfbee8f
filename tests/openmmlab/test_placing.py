"""One line on any class that a registry builds: the paper's network, or one sentence."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from abilities import needs_mmaction
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from bnet_mm import BNET
from bnet_mm.analysis.doctor import examine
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.openmmlab import placing
from bnet_mm.openmmlab.leftovers import frozen_by_config, frozen_by_stages, norm_warnings
from bnet_mm.openmmlab.models import build_model

BNET3 = dict(type='BNET', k=3)


class OwnBlock(BaseModule):
    def __init__(self, c, norm_cfg):
        super().__init__()
        self.first = ConvModule(c, c, 3, padding=1, norm_cfg=norm_cfg)
        self.second = ConvModule(c, c, 3, padding=1, norm_cfg=norm_cfg)

    def forward(self, x):
        return self.second(self.first(x)) + x


class OwnNetwork(BaseModule):
    """A third party's backbone, with a list of maps at its end."""

    def __init__(self, c=8, norm_cfg=dict(type='BN'), norm_eval=False, init_cfg=None):  # noqa: B006
        super().__init__(init_cfg)
        self.stem = ConvModule(3, c, 3, stride=2, padding=1, norm_cfg=norm_cfg)
        self.stages = nn.ModuleList(OwnBlock(c, norm_cfg) for _ in range(2))
        self.norm_eval = norm_eval

    def train(self, mode=True):
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, x):
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


@pytest.fixture
def registered():
    MODELS.register_module('OwnNetwork', module=OwnNetwork)
    yield
    MODELS.module_dict.pop('OwnNetwork')


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in named_norms(model, EnhancedNorm)]


@pytest.mark.parametrize('kind', ['OwnNetwork', OwnNetwork], ids=['name', 'class'])
@pytest.mark.parametrize('norm', ['BNET', BNET], ids=['name', 'class'])
def test_a_class_of_somebody_else(kind, norm, registered):
    torch.manual_seed(0)
    plain = MODELS.build(dict(type=kind))
    model = MODELS.build(dict(type=kind, norm_cfg=dict(type=norm, k=5), norm_eval=True))
    assert isinstance(model, OwnNetwork) and type(model).__name__ == 'OwnNetwork'
    assert names(model) == ['stages.0.second.bn', 'stages.1.second.bn']
    model.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 16, 16)
    for a, b in zip(model.eval()(x), plain.eval()(x)):
        torch.testing.assert_close(a, b)
    assert not any(m.training for m in model.train().modules() if isinstance(m, nn.BatchNorm2d))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert names(other) == names(model)
        torch.testing.assert_close(other.eval()(x)[1], model.eval()(x)[1])
    letters = dict(type=norm, k=5, positions='A')
    assert names(MODELS.build(dict(type=kind, norm_cfg=letters)))[0] == 'stages.0.first.bn'
    everywhere = dict(type=norm, k=5, positions='all')
    assert len(names(MODELS.build(dict(type=kind, norm_cfg=everywhere)))) == 5


def test_what_is_not_ours_is_built_as_it_was(registered):
    model = MODELS.build(dict(type='OwnNetwork', norm_cfg=dict(type='SyncBN')))
    assert type(model) is OwnNetwork and not names(model)


@pytest.fixture
def said(monkeypatch):
    """What is logged while networks are built."""
    lines = []
    monkeypatch.setattr(placing, 'print_log', lambda line, **_: lines.append(line))
    return lines


def test_leftovers_of_the_replaced_norm_are_dropped_with_a_line(registered, said):
    norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
    norm_cfg.update(BNET3)
    assert len(names(MODELS.build(dict(type='OwnNetwork', norm_cfg=norm_cfg)))) == 2
    assert said == [
        'norm_cfg of OwnNetwork: BNET takes no num_groups, left from another norm: dropped'
    ]
    with pytest.raises(InputError, match="BNET takes no 'kernel'"):
        MODELS.build(dict(type='OwnNetwork', norm_cfg=dict(type='BNET', kernel=3)))


def test_kernels_that_a_base_config_freezes_are_said(registered):
    for more, sentence in (
        (dict(requires_grad=False), '0 of 2 BNET kernels train: model.norm_cfg has requires_grad='),
        (dict(requires_grad=True), None),
    ):
        cfg = dict(type='OwnNetwork', norm_cfg=dict(BNET3, **more))
        found = list(norm_warnings(MODELS.build(cfg), cfg))
        assert not found if sentence is None else found[0].startswith(sentence)
    assert 'add requires_grad=True' in next(
        frozen_by_config(dict(backbone=dict(norm_cfg=dict(BNET3, requires_grad=False))))
    )


@pytest.mark.parametrize(
    ('base', 'sentence'),
    [
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', '0 of 16 BNET kernels train: .*requires_grad'),
        ('mmdet::faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py', '0 of 16 BNET kernels train'),
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', r'3 of 16 .*frozen_stages=1'),
        (
            'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            'statistics are of each process, .* type=SyncBNET synchronizes them',
        ),
    ],
)
def test_what_stock_configs_leave(base, sentence, tmp_path):
    (tmp_path / 'x.py').write_text(
        f'_base_ = {base!r}\nmodel = dict(backbone=dict(norm_cfg={BNET3}))'
    )
    cfg = load_config(tmp_path / 'x.py')
    with torch.device('meta'):
        model = build_model(cfg)
    assert len(names(model)) == 16
    found = ' '.join([*norm_warnings(model, cfg.model), str(frozen_by_stages(model, cfg.model))])
    assert re.search(sentence, found), found


@pytest.mark.parametrize(
    ('backbone', 'sentence'),
    [
        (dict(type='mmdet.SwinTransformer'), r'normalizes each token or pixel .*its norm is LN\b'),
        (dict(type='mmdet.PyramidVisionTransformer'), 'normalizes each token or pixel'),
        (dict(type='mmpretrain.ConvNeXt'), 'its norm is LN2d'),
        (dict(type='mmdet.SSDVGG', depth=16), 'SSDVGG takes no norm_cfg.*bnet_mm.enhance'),
        (dict(type='mmpretrain.LeNet5'), 'LeNet5 takes no norm_cfg'),
        (dict(type='mmpretrain.PoolFormer'), 'of its 12 residual blocks have no norm there'),
        (dict(type='mmpretrain.RepVGG', arch='A0', deploy=True), 'it has no norm over maps'),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_what_cannot_be_is_said_when_it_is_built(backbone, sentence):
    scope = backbone['type'].partition('.')[0]
    __import__(f'{scope}.models')
    with pytest.raises(InputError, match=sentence):
        MODELS.build(dict(backbone, norm_cfg=BNET3))


@needs_mmaction
def test_clips_in_three_dimensions_are_refused():
    __import__('mmaction.models')
    for kind, options in (('ResNet3d', dict(depth=50)), ('X3D', {}), ('C3D', {})):
        with pytest.raises(InputError, match=r'3-D.*, and BNET is over maps'):
            MODELS.build(dict(type=f'mmaction.{kind}', norm_cfg=BNET3, **options))


def test_networks_without_residual_blocks_have_every_norm_and_a_line(said):
    __import__('mmpretrain.models')
    model = MODELS.build(dict(type='mmpretrain.VGG', depth=11, norm_cfg=BNET3))
    assert len(names(model)) == 8
    assert said == ['norm_cfg of VGG: VGG has no residual blocks: all 8 norms are BNET']


PYTHON = """
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet
from bnet_mm import BNET

model = dict(
    type=ImageClassifier,
    backbone=dict(type=ResNet, depth=18, norm_cfg=dict(type=BNET, k=5)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=512),
)
default_scope = None
"""
TEXT = """
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BNET', k=5)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)
default_scope = 'mmpretrain'
"""


def test_a_config_in_python_gives_the_network_of_its_text(tmp_path):
    (tmp_path / 'python.py').write_text(PYTHON)
    (tmp_path / 'text.py').write_text(TEXT)
    configs = [load_config(tmp_path / f'{name}.py') for name in ('python', 'text')]
    models = [build_model(cfg) for cfg in configs]
    ours, theirs = (names(model) for model in models)
    assert ours == theirs and len(ours) == 8
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]
    found = [examine(cfg).norms for cfg in configs]
    assert found[0] == found[1]
