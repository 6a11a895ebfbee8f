"""ONNX: both exporters, free sizes, and what onnxruntime makes of the file."""

from __future__ import annotations

import sys

import pytest
import torch
from abilities import needs_dynamo_onnx
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from torch import nn

from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.deploy.operators import check_operators, opset_of
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.layers import EnhancedNorm
from bnet_mm.reports.deployment import export_lines

pytest.importorskip('onnx')
CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BNET', k=5)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)


def trained(cfg, path):
    """Saves weights of `cfg` whose kernels and statistics have moved, and returns the file."""
    with MODELS.switch_scope_and_registry(cfg.default_scope) as models:
        model = models.build(cfg.copy().model)
    for module in model.modules():
        if isinstance(module, EnhancedNorm):
            nn.init.normal_(module.dw.weight, std=0.2)
            nn.init.normal_(module.norm.running_mean, std=0.2)
    torch.save({'state_dict': model.state_dict()}, path)
    return str(path)


@pytest.fixture
def classifier():
    __import__('mmpretrain.models')
    return Config(dict(model=CLASSIFIER, default_scope='mmpretrain'))


@pytest.mark.parametrize('dynamo', [pytest.param(True, marks=needs_dynamo_onnx), False])
def test_classifier(classifier, dynamo, tmp_path):
    free_size = not dynamo  # of the other, test_sizes_of_segmentors
    weights = trained(classifier, tmp_path / 'x.pth')
    written = export_onnx(
        classifier, weights, tmp_path / 'x.onnx', 'model', (64, 96), free_size, dynamo
    )
    assert written.outputs == ['logits']
    assert written.difference < 1e-5 and (written.size is None) == free_size
    assert {file.name for file in tmp_path.iterdir()} == {'x.pth', 'x.onnx'}


def test_segmentor_and_its_pooling(tiny_segmentor, tmp_path):
    """Pooling to fixed numbers of cells, in images of any size."""
    cfg = load_config(tiny_segmentor)
    weights = trained(cfg, tmp_path / 'x.pth')
    for free_size in (True, False):
        out = tmp_path / f'{free_size}.onnx'
        written = export_onnx(cfg, weights, out, shape=(96, 96), free_size=free_size)
        assert written.difference < 1e-5
        assert read_graph(out).size == (None if free_size else (96, 96))


HEADS = {
    'of several outputs': dict(type='DAHead', pam_channels=4, in_channels=64, in_index=3),
    'that divides the map': dict(
        type='ISAHead', isa_channels=4, down_factor=(2, 2), in_channels=64, in_index=3
    ),
    'after HRNet': dict(
        type='FCNHead', in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3], num_convs=1,
        kernel_size=1, input_transform='resize_concat',
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', HEADS)
def test_sizes_of_segmentors(kind, tmp_path):
    """Free where the exporter can write it, of images whose sides no stride divides, too."""
    cfg = load_config('configs/demo/pspnet_r18_bnet3_demo.py')
    norm = dict(type='BNET', k=3)
    cfg.model.backbone.update(base_channels=8, stem_channels=8)
    if kind == 'after HRNet':
        stages = {
            f'stage{i + 1}': dict(
                num_modules=1, num_branches=i + 1, block='BASIC' if i else 'BOTTLENECK',
                num_blocks=(1,) * (i + 1), num_channels=(4, 8, 16, 32)[: i + 1],
            )
            for i in range(4)
        }  # fmt: skip
        cfg.model.backbone = dict(type='HRNet', extra=stages, norm_cfg=norm)
    cfg.model.decode_head = dict(HEADS[kind], channels=8, num_classes=4, norm_cfg=norm)
    cfg.model.auxiliary_head = None
    weights, out = trained(cfg, tmp_path / 'x.pth'), tmp_path / 'x.onnx'
    written = export_onnx(cfg, weights, out, shape=(64, 96))
    assert written.difference < 1e-5
    if kind == 'that divides the map' or not HAS_DYNAMO_ONNX:
        assert written.size == read_graph(out).size
        said = list(export_lines(written, 'onnxruntime'))
        assert (written.size is None) != any('other sizes than 64x96 failed: ' in s for s in said)
    else:
        assert written.size is None and written.why_fixed is None


class OneSize(nn.Sequential):
    def __init__(self):
        convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        super().__init__(convolution, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16 * 24, 6))

    def forward(self, images):
        return (super().forward(images),)


def test_a_network_of_one_size(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'OneSize', OneSize)
    head = dict(type='LinearClsHead', num_classes=5, in_channels=6)
    classifier.model = dict(type='ImageClassifier', backbone=dict(type='OneSize'), head=head)
    written = export_onnx(classifier, None, tmp_path / 'x.onnx', shape=(32, 48))
    assert written.size == read_graph(tmp_path / 'x.onnx').size == (32, 48)
    said = list(export_lines(written, 'onnxruntime'))
    assert said[1].startswith('other sizes than 32x48 failed: torch cannot export this model (')
    with pytest.raises(InputError, match=r'^ImageClassifier cannot run on an image of 48x64, per'):
        export_onnx(classifier, None, tmp_path / 'y.onnx', shape=(64, 48))
    assert not (tmp_path / 'y.onnx').exists()


@pytest.mark.parametrize(
    ('config', 'shape', 'kind'),
    [
        ('tiny_config', (64, 96), {}),
        ('tiny_recognizer', (64, 64), {}),
        # Two frames make a clip, between which it shifts.
        ('tiny_recognizer', (64, 64), dict(type='ResNetTSM', num_segments=2, shift_div=4)),
    ],
)
def test_backbones_of_detectors_and_video_models(config, shape, kind, request, tmp_path):
    cfg = load_config(request.getfixturevalue(config))
    cfg.model.backbone.update(kind)
    weights = trained(cfg, tmp_path / 'x.pth')
    photos = {}
    if kind:
        (tmp_path / 'photos').mkdir()
        Image.new('RGB', (64, 64), 'red').save(tmp_path / 'photos/x.png')
        photos = dict(int8=tmp_path / 'photos')
    written = export_onnx(cfg, weights, tmp_path / 'x.onnx', 'backbone', shape, **photos)
    assert written.difference < 1e-5
    assert written.outputs[0] == 'stage1'


def test_what_cannot_be_exported_is_said(tiny_config, classifier, tmp_path, monkeypatch):
    detector = load_config(tiny_config)
    with pytest.raises(InputError, match='whole models of mmdet are not exported here'):
        export_onnx(detector, None, tmp_path / 'x.onnx')
    for out in ('x.pt', 'none/x.onnx'):
        with pytest.raises(InputError, match=r'name an \.onnx file, .*in a folder that exists'):
            export_onnx(classifier, None, tmp_path / out)
    with pytest.raises(InputError, match='the config has no model'):
        export_onnx(Config(dict(default_scope='mmpretrain')), None, tmp_path / 'x.onnx')
    torch.save({'state_dict': {'other.weight': torch.ones(1)}}, tmp_path / 'other.pth')
    with pytest.raises(InputError, match=r'other\.pth has no tensor of this model'):
        export_onnx(classifier, str(tmp_path / 'other.pth'), tmp_path / 'x.onnx')
    (tmp_path / 'folder.onnx').mkdir()
    with pytest.raises(InputError, match=r'folder\.onnx cannot be written: Is a directory'):
        export_onnx(classifier, None, tmp_path / 'folder.onnx', shape=(32, 32), dynamo=False)
    (tmp_path / 'folder.onnx').rmdir()
    monkeypatch.setattr('bnet_mm.deploy.onnx.TOLERANCE', 0.0)
    with pytest.raises(InputError, match='onnxruntime differs from torch'):
        export_onnx(classifier, None, tmp_path / 'x.onnx', shape=(32, 32))
    assert not list(tmp_path.glob('*onnx*'))


def test_an_operator_that_onnx_has_not(tmp_path):
    import onnx

    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ['n']) for n in 'xy')
    node = onnx.helper.make_node('MMCVCarafe', ['x'], ['y'], domain='mmcv')
    model = onnx.helper.make_model(onnx.helper.make_graph([node], 'g', [x], [y]))
    onnx.save(model, str(tmp_path / 'x.onnx'))
    with pytest.raises(InputError, match=r'ONNX has not \(MMCVCarafe\)'):
        check_operators(tmp_path / 'x.onnx')


@pytest.mark.parametrize('dynamo', [False, pytest.param(True, marks=needs_dynamo_onnx)])
def test_opsets(dynamo, classifier, tmp_path):
    out = tmp_path / 'x.onnx'
    wanted = 20 if dynamo else 13
    export_onnx(classifier, None, out, dynamo=dynamo, opset=wanted)
    assert opset_of(out) == wanted
    for opset in (3, 99):
        with pytest.raises(InputError, match=f'opset {opset} cannot be written here: name one of'):
            export_onnx(classifier, None, tmp_path / 'y.onnx', dynamo=dynamo, opset=opset)
    assert not (tmp_path / 'y.onnx').exists()


@pytest.mark.parametrize('package', ['onnx', pytest.param('onnxscript', marks=needs_dynamo_onnx)])
def test_a_package_that_is_missing(package, classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(InputError, match=f'ONNX needs the package {package}: pip install'):
        export_onnx(classifier, None, tmp_path / 'x.onnx')


def test_command_line(tiny_config, run_tool, tmp_path):
    args = (tiny_config, 'none', 'x.onnx', '--part', 'backbone', '--shape', 64, 64, '--no-dynamo')
    said = run_tool('export_onnx.py', *args, check=True).stdout.splitlines()
    expected = 'x.onnx: stage1, stage2, stage3, stage4; onnxruntime differs by'
    assert any(line.startswith(expected) for line in said)
    assert said[-1] == 'not run: the list of Core ML has all operators of the graph'
