"""ONNX: both exporters, free sizes, and what onnxruntime makes of the file."""

from __future__ import annotations

import sys

import pytest
import torch
from abilities import needs_dynamo_onnx
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.deploy.operators import opset_of
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm

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
@pytest.mark.parametrize('free_size', [True, False])
def test_classifier(classifier, dynamo, free_size, tmp_path):
    weights = trained(classifier, tmp_path / 'x.pth')
    written = export_onnx(
        classifier, weights, tmp_path / 'x.onnx', 'model', (64, 96), free_size, dynamo
    )
    assert written.outputs == ['logits']
    assert written.difference < 1e-5
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


@pytest.mark.parametrize(
    ('config', 'shape'), [('tiny_config', (64, 96)), ('tiny_recognizer', (64, 64))]
)
def test_backbones_of_detectors_and_video_models(config, shape, request, tmp_path):
    cfg = load_config(request.getfixturevalue(config))
    weights = trained(cfg, tmp_path / 'x.pth')
    written = export_onnx(cfg, weights, tmp_path / 'x.onnx', 'backbone', shape)
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


def test_a_layer_that_the_exporter_does_not_know(tmp_path):
    deformed = dict(dcn=dict(type='DCN', deform_groups=1), stage_with_dcn=(False,) * 3 + (True,))
    backbone = dict(type='ResNet', depth=50, base_channels=8, norm_cfg=dict(type='BNET', k=3))
    __import__('mmdet.models')
    cfg = Config(
        dict(
            model=dict(
                type='RetinaNet',
                backbone={**backbone, **deformed},
                neck=dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=8, num_outs=5),
                bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8),
            ),
            default_scope='mmdet',
        )
    )
    with pytest.raises(InputError, match=r'ONNX has not \(MMCVDeformConv2d\)'):
        export_onnx(cfg, None, tmp_path / 'x.onnx', 'backbone', (128, 128), False, dynamo=False)
    assert not list(tmp_path.iterdir())


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
