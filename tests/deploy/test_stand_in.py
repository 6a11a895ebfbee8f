"""Written graphs in the place of networks: the test set's metrics stay those of the checkpoint."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from mmengine.config import Config

from bnet_mm.deploy import rewriters
from bnet_mm.deploy.agreement import agreement
from bnet_mm.deploy.detectors import export_detector
from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.deploy.stand_in import stand_in
from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.engine.launch import test as evaluate
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import build_model

pytest.importorskip('onnxruntime')


def weights_of(cfg: Config, path) -> str:
    """Writes weights of which every statistic and kernel has moved."""
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, tensor in model.state_dict().items():
        if name.endswith('running_var'):
            tensor.uniform_(0.5, 2)
        elif name.endswith('fc_cls.weight'):
            tensor.normal_(std=1.0)
        elif name.endswith(('dw.weight', 'running_mean', 'cls_seg.bias')):
            tensor.uniform_(-0.4, 0.4)
    torch.save({'state_dict': model.state_dict()}, path)
    return str(path)


def metrics(config, tmp_path, checkpoint=None, prepare=None) -> dict:
    cfg = load_config(config)
    set_run_options(cfg, config_path=config, work_dir=str(tmp_path / 'run'))
    return evaluate(cfg, checkpoint, prepare=prepare)


@pytest.mark.parametrize(
    ('fixture', 'part', 'shape'),
    [
        ('tiny_classifier', 'model', (32, 32)),
        ('tiny_segmentor', 'model', (64, 96)),
        ('tiny_recognizer', 'backbone', (64, 64)),
    ],
)
def test_metrics_by_the_graph_are_the_model_s(fixture, part, shape, request, tmp_path):
    config = request.getfixturevalue(fixture)
    weights = weights_of(load_config(config), tmp_path / 'x.pth')
    out = tmp_path / 'x.onnx'
    export_onnx(load_config(config), weights, out, part, shape)
    expected = metrics(config, tmp_path, weights)
    whole = part == 'model'
    prepare = partial(stand_in, file=out, whole=whole)
    got = metrics(config, tmp_path, None if whole else weights, prepare)
    if not whole:
        with pytest.raises(InputError, match='holds the backbone: name a checkpoint'):
            metrics(config, tmp_path, prepare=partial(stand_in, file=out))
    assert expected and got == pytest.approx(expected, abs=0.02)


@pytest.mark.skipif(not rewriters.is_available(), reason='mmdeploy is not installed')
@torch.no_grad()
@pytest.mark.parametrize('free_size', [True, False])
def test_boxes_go_back_to_the_image(free_size, tiny_config, tmp_path):
    """An image of the size of the export, half its own; a smaller one and a larger one."""
    from mmdet.structures import DetDataSample

    cfg = load_config(tiny_config)
    weights = weights_of(cfg, tmp_path / 'x.pth')
    out = tmp_path / 'x.onnx'
    export_detector(cfg, weights, out, (64, 96), free_size=free_size)
    model = build_model(cfg)
    model.load_state_dict(torch.load(weights)['state_dict'])

    def found_in(image, scale=1.0):
        size = tuple(image.shape[2:])
        full = tuple(int(side / scale) for side in size)
        sizes = dict(img_shape=size, pad_shape=size, batch_input_shape=size, ori_shape=full)
        sample = DetDataSample(metainfo=dict(sizes, scale_factor=(scale, scale), img_id=0))
        return model.predict(image, [sample])[0].pred_instances

    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    parts = ('bboxes', 'scores', 'labels')
    expected = found_in(image, 0.5)
    stand_in(model, out)
    got = found_in(image, 0.5)
    alike = agreement(*(tuple(found[part] for part in parts) for found in (expected, got)))
    assert alike.compared > 4 and alike.lacking <= 0.1 * alike.compared
    assert got.bboxes.amax() > 96  # in the pixels of the image in the file

    narrow = found_in(image[..., :60])
    assert len(narrow) and narrow.bboxes[:, 2].max() <= 60
    larger = found_in(torch.nn.functional.interpolate(image, scale_factor=2))
    assert 96 < larger.bboxes.amax() <= 192

    # One of a batch, which the preprocessor has padded.
    padded = torch.nn.functional.pad(image[..., :60], (0, 36))
    size = dict(img_shape=(64, 60), ori_shape=(64, 60), pad_shape=(64, 96))
    sample = DetDataSample(metainfo=dict(size, batch_input_shape=(64, 96), img_id=0))
    boxes = model.predict(padded, [sample])[0].pred_instances.bboxes
    assert len(boxes) and boxes[:, 2].max() <= 60


def test_what_does_not_fit_is_said(tiny_classifier, tiny_segmentor, tmp_path):
    cfg = load_config(tiny_classifier)
    export_onnx(cfg, None, tmp_path / 'x.onnx', 'model', (32, 32))
    detector = torch.nn.Module()
    with pytest.raises(InputError, match='gives logits, which a Module cannot use'):
        stand_in(detector, tmp_path / 'x.onnx')
    for name, content in (('none.onnx', None), ('broken.onnx', b'not a graph')):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f'onnxruntime cannot read .*{name}'):
            stand_in(detector, tmp_path / name)


def test_command_line(tiny_classifier, run_tool, tmp_path):
    export_onnx(load_config(tiny_classifier), None, tmp_path / 'x.onnx', 'model', (32, 32))
    said = run_tool('test.py', tiny_classifier, 'x.onnx', '--runtime', 'onnxruntime', check=True)
    assert 'accuracy/top1' in said.stdout
    wrong = run_tool('test.py', tiny_classifier, 'x.pth', '--runtime', 'onnxruntime')
    assert wrong.returncode == 2 and '--runtime is for a graph' in wrong.stderr
