"""MMPretrain's backbones, and this package's own for it: where norms stand, how they start."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

import bnet_mm  # noqa: F401  (registers the backbones)
from bnet_mm.analysis.doctor import examine
from bnet_mm.checkpoint import contents_of, convert, read_checkpoint, verify
from bnet_mm.engine.config import load_config
from bnet_mm.engine.start_report import describe_norms
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET, GNET, INET, SNET, BNControl, EnhancedNorm
from bnet_mm.layers.frelu import FReLU
from bnet_mm.layers.kinds import PLAIN_NORMS
from bnet_mm.openmmlab.backbones.birealnet import BiRealBlock
from bnet_mm.text import without_prefix

NORMS = {
    'BNET': (dict(type='BNET', k=3), dict(type='BN'), BNET),
    'GNET': (dict(type='GNET', k=3, num_groups=4), dict(type='GN', num_groups=4), GNET),
    'SNET': (dict(type='SNET', k=3), dict(type='SN'), SNET),
    'INET': (dict(type='INET', k=3), dict(type='IN', affine=True), INET),
    'BNControl': (dict(type='BNControl', k=3), dict(type='BN'), BNControl),
}


def build(type, scope='mmpretrain', **kwargs):
    torch.manual_seed(0)
    __import__(f'{scope}.models')
    model = MODELS.build(dict(type=f'{scope}.{type}', **kwargs))
    model.train()
    return model


def small(norm_cfg, depth=50, **kwargs):
    return build(
        'ResNet', depth=depth, base_channels=8, stem_channels=8, norm_cfg=norm_cfg, **kwargs
    )


@pytest.mark.parametrize(
    ('name', 'positions'),
    [('BNET', 'A'), ('BNET', 'ABC'), ('SNET', 'all'), *((name, None) for name in NORMS)],
)
def test_norms_at_their_positions_and_plain_ones_elsewhere(name, positions):
    norm_cfg, plain_cfg, kind = NORMS[name]
    model = small(norm_cfg if positions is None else {**norm_cfg, 'positions': positions})
    plain = small(plain_cfg)
    placed = [m for m in model.modules() if isinstance(m, kind)]
    assert len(placed) == {None: 16, 'A': 16, 'ABC': 48, 'all': 53}[positions]
    if name != 'BNControl':
        # Everything else is the library's network: same initial outputs and tensors.
        model.load_state_dict(plain.state_dict())
        x = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(model(x)[-1], plain(x)[-1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet'])
@pytest.mark.parametrize('name', NORMS)
def test_last_norms_start_at_zero_where_the_library_has_it_and_learn(name, scope):
    model = build('ResNet', scope, depth=18, base_channels=8, stem_channels=8,
                  norm_cfg=NORMS[name][0], out_indices=(3,))  # fmt: skip
    if scope == 'mmdet':
        model.norm_eval = False
        model.train()
    for _ in range(2):
        model.init_weights()
    last = [block.norm2 for stage in range(1, 5) for block in getattr(model, f'layer{stage}')]
    x = torch.randn(2, 8, 9, 9)
    for norm in last:
        width = norm.dw.in_channels if isinstance(norm, EnhancedNorm) else norm.conv.in_channels
        assert not copy.deepcopy(norm)(torch.randn(2, width, 9, 9)).any()
    model(torch.randn(2, 3, 64, 64))[-1].square().sum().backward()
    kernels = [n.dw.weight if isinstance(n, EnhancedNorm) else n.conv.weight for n in last]
    assert all(kernel.grad.any() for kernel in kernels)
    other = small(NORMS[name][0], 18, zero_init_residual=False)
    other.init_weights()
    assert other.layer1[0].norm2(x).any()


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet', 'mmseg'])
def test_mobilenets_have_bnet_after_the_expansions(scope):
    plain = build('MobileNetV2', scope)
    model = build('MobileNetV2', scope, norm_cfg=dict(type='BNET', k=3))
    names = [name for name, m in model.named_modules() if isinstance(m, BNET)]
    assert len(names) == 16 and not any(name.startswith(('conv', 'layer1.')) for name in names)
    assert all(model.get_submodule(name).norm.num_features >= 6 * 16 for name in names)
    for m in (model, plain):
        m.eval()
    model.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x)[-1], plain(x)[-1], rtol=1e-4, atol=1e-4)
    everywhere = build('MobileNetV2', scope, norm_cfg=dict(type='BNET', k=3, positions='all'))
    assert sum(isinstance(m, BNET) for m in everywhere.modules()) >= 51


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet'])
def test_funnel_activations_by_config_frozen_with_their_stage(scope):
    model = build('ResNet', scope, depth=50, frozen_stages=1, norm_cfg=dict(type='BNET', k=3),
                  act_cfg=dict(type='FReLU'), with_cp=True, out_indices=(3,))  # fmt: skip
    acts = {name: m for name, m in model.named_modules() if isinstance(m, FReLU)}
    assert len(acts) == 49
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    model(x)[-1].sum().backward()
    frozen = {name for name, act in acts.items() if not act.conv.weight.requires_grad}
    assert frozen == {n for n in acts if n == 'relu' or n.startswith('layer1.')}
    assert all(acts[n].conv.weight.grad is not None for n in set(acts) - frozen)
    assert not acts['relu'].bn.training
    assert not any(isinstance(m, FReLU) for m in build('ResNet', scope, depth=18).modules())
    for wrong in (dict(type='GELU'), dict(type='FReLU', k=5)):
        with pytest.raises(InputError, match=r"takes act_cfg=dict\(type='FReLU'\)"):
            build('ResNet', scope, depth=18, act_cfg=wrong)


def test_bi_real_net():
    model = build('BiRealNet', depth=18, base_channels=8, norm_cfg=dict(type='BNET', k=3),
                  out_indices=(0, 1, 2, 3), frozen_stages=1)  # fmt: skip
    model.init_weights()
    blocks = [m for m in model.modules() if isinstance(m, BiRealBlock)]
    assert len(blocks) == 16 and all(isinstance(b.norm1, BNET) for b in blocks)
    assert sum(isinstance(m, PLAIN_NORMS) for m in model.modules()) == 16 + 1 + 3  # and BNETs' own
    x = torch.randn(2, 3, 64, 64)
    outputs = model(x)
    assert [tuple(y.shape[1:]) for y in outputs] == [(8 * 2**i, 16 >> i, 16 >> i) for i in range(4)]
    outputs[-1].square().sum().backward()
    trained = [p.grad is not None for p in model.parameters()]
    assert [p.requires_grad for p in model.parameters()] == trained
    assert not model.layer1[0].norm1.norm.training and model.layer2[0].norm1.norm.training
    # A block by its definition, with real numbers around it.
    block, y = blocks[5], torch.randn(1, 16, 8, 8)
    block.eval()
    binary = block.conv1.weight.abs().mean((1, 2, 3), keepdim=True) * block.conv1.weight.sign()
    expected = block.norm1(F.conv2d(y.sign(), binary, padding=1)) + y
    torch.testing.assert_close(block(y), expected)
    with pytest.raises(KeyError, match='invalid depth 50'):
        build('BiRealNet', depth=50)


@pytest.mark.parametrize(('depth', 'blocks', 'parameters'), [(20, 9, 0.27e6), (56, 27, 0.85e6)])
def test_resnets_for_cifar(depth, blocks, parameters):
    model = build('CifarResNet', depth=depth, norm_cfg=dict(type='BNET', k=3))
    assert sum(isinstance(m, BNET) for m in model.modules()) == blocks
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.03)
    assert model(torch.randn(2, 3, 32, 32))[0].shape == (2, 64, 8, 8)
    shortcut = model.layer2[0].downsample
    y = shortcut(torch.arange(16.0)[None, :, None, None].expand(1, 16, 4, 4))
    assert y[0, :, 0, 0].tolist() == [0] * 8 + list(range(16)) + [0] * 8


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """A classification run's checkpoint, by norm: mmpretrain's names, below `backbone.`."""

    def make(name: str, **kwargs):
        model = MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(type='mmpretrain.ResNet', depth=18, norm_cfg=NORMS[name][0],
                              **kwargs),
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=512),
            )
        )  # fmt: skip
        generator = torch.Generator().manual_seed(1)
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                value = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(value if tensor.ndim == 1 else 0.2 * (value - 0.5))
        path = tmp_path_factory.mktemp('classifier') / f'{name}.pth'
        torch.save({'state_dict': model.state_dict(), 'meta': {}, 'optimizer': {}}, path)
        model.backbone.out_indices = (0, 1, 2, 3)
        return path, model.eval()

    __import__('mmpretrain.models')
    return make


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmaction', 'mmpretrain'])
@pytest.mark.parametrize('name', ['BNET', 'GNET', 'SNET', 'INET', 'BNControl'])
def test_a_classifiers_checkpoint_goes_into_any_backbone_with_one_option(name, scope, classifier):
    path, trained = classifier(name)
    source = dict(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    if scope == 'mmaction':
        source = dict(pretrained=str(path))
    model = build('ResNet', scope, depth=18, norm_cfg=NORMS[name][0],
                  out_indices=(0, 1, 2, 3), **source)  # fmt: skip
    model.init_weights()
    model.eval()
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(model(x), trained.backbone(x)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_classifier_with_funnels_goes_into_a_detectors_backbone(classifier):
    path, trained = classifier('BNET', act_cfg=dict(type='FReLU'))
    pretrained = dict(type='Pretrained', checkpoint=str(path))
    model = build('ResNet', 'mmdet', depth=18, norm_cfg=dict(type='BNET', k=3),
                  act_cfg=dict(type='FReLU'), init_cfg=pretrained)  # fmt: skip
    model.init_weights()
    model.eval()
    x = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(model(x), trained.backbone(x)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_mobilenets_checkpoint_goes_into_a_segmentors_backbone(tmp_path):
    norm_cfg = dict(type='BNET', k=3)
    source = build('MobileNetV2', norm_cfg=norm_cfg)
    state = {f'backbone.{key}': value for key, value in source.state_dict().items()}
    torch.save(state, tmp_path / 'x.pth')
    model = build('MobileNetV2', 'mmpretrain', norm_cfg=norm_cfg)
    nn.init.zeros_(model.conv1.conv.weight)
    load_checkpoint(model, str(tmp_path / 'x.pth'))
    assert all(torch.equal(a, b) for a, b in zip(
        model.state_dict().values(), source.state_dict().values()))  # fmt: skip


def test_the_converter_knows_a_classification_run(classifier):
    path, _ = classifier('BNET')
    contents = contents_of(read_checkpoint(path))
    found = convert(contents, to='mmdet')
    assert all(stage.equal for stage in verify(contents.state, found))
    assert 'layer1.0.bn2.dw.weight' in {without_prefix(key, 'backbone.') for key in found.state}


@pytest.mark.parametrize(
    ('name', 'others'), [('snet3', '37 SwitchNorm2d'), ('gnet3', '37 GroupNorm')]
)
def test_reports_know_the_other_norms(name, others):
    cfg = load_config(f'configs/resnet50_{name}_100e_in1k.py')
    found = examine(cfg)
    assert len(found.norms) == 16 and found.others == {others.split()[1]: 37}
    line = describe_norms(MODELS.build({**cfg.model, 'type': 'mmpretrain.ImageClassifier'}))
    assert line.startswith(f'Norms: 16 {name[:-1].upper()}-3') and line.endswith(f'plain: {others}')
