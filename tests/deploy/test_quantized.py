"""ONNX in 8 bits: what it costs is said, and what cannot be is one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.deploy.operators import lacking
from bnet_mm.deploy.quantized import nodes_in_8_bits
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError

pytest.importorskip('onnxruntime.quantization')
SMALL = {
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'model.head.in_channels': 64,
}


@pytest.fixture
def photos(tmp_path):
    (tmp_path / 'photos').mkdir()
    numbers = np.random.default_rng(0)
    for i in range(3):
        pixels = numbers.integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'photos/{i}.png')
    return tmp_path / 'photos'


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('part', ['model', 'backbone'])
def test_eight_bits(part, runtime, photos, tmp_path):
    pytest.importorskip('mmpretrain')
    if runtime == 'openvino':
        pytest.importorskip('nncf')
    cfg = load_config('configs/demo/resnet18_bnet3_demo.py', SMALL)
    options = dict(part=part, shape=(32, 32), runtime=runtime)
    torch.manual_seed(0)
    whole = export_onnx(cfg, None, tmp_path / 'whole.onnx', **options)
    torch.manual_seed(0)
    small = export_onnx(cfg, None, tmp_path / 'small.onnx', int8=photos, **options)
    assert whole.cost is None and small.cost.photos == 3
    assert 0 < small.cost.error < 0.1
    assert (small.cost.same is None) == (part == 'backbone')
    assert small.path.stat().st_size < 0.6 * whole.path.stat().st_size
    image = torch.randn(2, 3, 32, 32)
    before, after = (read_graph(written.path, runtime)(image)[0] for written in (whole, small))
    assert 0 < (before - after).abs().mean() < 0.5 * before.abs().mean()  # beyond the ranges
    assert {path.name for path in tmp_path.iterdir()} == {'photos', 'whole.onnx', 'small.onnx'}


def test_without_photos_nothing_is_written(tmp_path):
    pytest.importorskip('mmpretrain')
    cfg = load_config('configs/demo/resnet18_bnet3_demo.py')
    (tmp_path / 'empty').mkdir()
    for folder, sentence in (('none', 'is not a folder'), ('empty', 'has no photo')):
        with pytest.raises(InputError, match=sentence):
            export_onnx(cfg, None, tmp_path / 'x.onnx', int8=tmp_path / folder)
    assert not list(tmp_path.glob('*.onnx*'))


def test_the_last_convolution_and_what_follows_stay():
    make = pytest.importorskip('onnx').helper
    nodes = [
        make.make_node(kind, inputs, [output], name=output)
        for kind, inputs, output in (
            ('Conv', ['image', 'w'], 'a'),
            ('Relu', ['a'], 'b'),
            ('Conv', ['b', 'w'], 'c'),
            ('Add', ['b', 'c'], 'd'),
            ('Conv', ['d', 'w'], 'boxes'),
            ('Mul', ['boxes', 's'], 'sized'),
            ('NonMaxSuppression', ['sized', 's'], 'kept'),
            ('RoiAlign', ['d', 'kept'], 'regions'),
            ('Flatten', ['regions'], 'flat'),
            ('Gemm', ['flat', 'w'], 'e'),
        )
    ]
    graph = make.make_graph(nodes, 'detector', [], [])
    assert nodes_in_8_bits(graph) == ['a', 'b', 'c', 'd', 'e', 'flat']


def test_runtimes_that_lack_an_operator_are_named(tmp_path):
    onnx = pytest.importorskip('onnx')
    make = onnx.helper
    image = make.make_tensor_value_info('image', 1, [1, 3, 8, 8])
    nodes = [
        make.make_node('Unique', ['image'], ['values']),
        make.make_node('NonZero', ['values'], ['found']),
    ]
    found = make.make_tensor_value_info('found', 7, [1, None])
    onnx.save(make.make_model(make.make_graph(nodes, 'g', [image], [found])), tmp_path / 'x.onnx')
    assert lacking(tmp_path / 'x.onnx') == {
        'TensorRT 8.5': ['Unique'],
        'Core ML': ['NonZero', 'Unique'],
    }
