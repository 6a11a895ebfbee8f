"""OpenVINO's own files: equal to the graph, with a routine asked for where that is faster."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from bnet_mm.deploy import writing
from bnet_mm.deploy.onnx import export_onnx, write_graph
from bnet_mm.deploy.openvino_files import ROUTINE, write_openvino
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError

pytest.importorskip('openvino')


@pytest.fixture
def graph(tmp_path):
    """A graph with kernels of three sizes, and a convolution of two groups."""
    torch.manual_seed(0)
    kernels = [nn.Conv2d(8, 8, k, padding=k // 2, groups=8) for k in (3, 5, 7)]
    net = nn.Sequential(*kernels, nn.Conv2d(8, 8, 5, padding=2, groups=2)).eval()
    file = tmp_path / 'x.onnx'
    image = torch.randn(2, 8, 12, 14)
    write_graph(net, image, file, ['logits'], free_size=True, dynamo=False)
    return net, image, file


def test_a_routine_is_asked_for_where_it_is_faster(graph):
    net, image, file = graph
    out = file.with_suffix('.xml')
    write_openvino(file, out)
    layers = [each for each in ElementTree.parse(out).iter('layer') if 'Group' in each.get('type')]
    sizes = [
        [int(dim.text) for dim in layer.findall('input/port')[1].findall('dim')] for layer in layers
    ]
    marked = {tuple(size): ROUTINE in out_of(layer) for size, layer in zip(sizes, layers)}
    assert marked == {
        (8, 1, 1, 3, 3): False,
        (8, 1, 1, 5, 5): True,
        (8, 1, 1, 7, 7): True,
        (2, 4, 4, 5, 5): False,
    }
    with torch.no_grad():
        torch.testing.assert_close(read_graph(out, 'openvino')(image)[0], net(image))


def out_of(layer: ElementTree.Element) -> str:
    return ElementTree.tostring(layer, 'unicode')


def test_sixteen_bits(graph):
    net, image, file = graph
    out = file.with_suffix('.xml')
    write_openvino(file, out)
    full = out.with_suffix('.bin').stat().st_size
    write_openvino(file, out, half=True)
    assert out.with_suffix('.bin').stat().st_size < 0.6 * full
    with torch.no_grad():
        difference = (read_graph(out, 'openvino')(image)[0] - net(image)).abs().max()
    assert 0 < difference < 0.01


def test_both_files_appear_or_none(tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    cfg = load_config('configs/demo/resnet18_bnet3_demo.py')
    options = dict(shape=(32, 32), dynamo=False, runtime='openvino')
    monkeypatch.setattr(writing, 'move', lambda *_: (_ for _ in ()).throw(OSError('full')))
    with pytest.raises(InputError, match=r'x\.xml cannot be written: full'):
        export_onnx(cfg, None, tmp_path / 'x.xml', **options)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    written = export_onnx(cfg, None, tmp_path / 'x.xml', half=True, **options)
    assert written.cost.bits == 16 and written.cost.error < 0.01
    assert {path.name for path in tmp_path.iterdir()} == {'x.xml', 'x.bin'}
    (tmp_path / 'folder.xml').mkdir()
    with pytest.raises(InputError, match=r'folder\.xml cannot be written: Is a directory'):
        export_onnx(cfg, None, tmp_path / 'folder.xml', **options)
    assert not (tmp_path / 'folder.bin').exists()
    for name, more, words in (
        ('y.onnx', dict(half=True), '--half is for files of OpenVINO'),
        ('y.xml', dict(runtime='onnxruntime'), 'with --runtime openvino an .xml one'),
    ):
        with pytest.raises(InputError, match=words):
            export_onnx(cfg, None, tmp_path / name, **{**options, **more})


def test_command_line(tiny_classifier, run_tool):
    said = run_tool('export_onnx.py', tiny_classifier, 'none', 'x.xml', '--half', check=True).stdout
    assert 'openvino differs by' in said and '16 bits: ' in said and 'not run' not in said
    assert 'accuracy/top1' in run_tool('test.py', tiny_classifier, 'x.xml', check=True).stdout
