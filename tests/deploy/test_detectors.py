"""Whole detectors in ONNX find what the trained ones find."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from bnet_mm.deploy import detectors, rewriters
from bnet_mm.deploy.agreement import agreement, same_finds
from bnet_mm.deploy.detectors import export_detector
from bnet_mm.deploy.openvino_files import ROUTINE
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import build_model
from bnet_mm.reports.deployment import export_lines

pytest.importorskip('mmdet')
needs_mmdeploy = pytest.mark.skipif(
    not rewriters.is_available(), reason='mmdeploy is not installed, or does not work here'
)
SIZE = (64, 96)


def detector(kind: str) -> Config:
    """A small detector, of one stage or of two, with masks."""
    two_stages = 'configs/demo/faster_rcnn_r18_bnet5_fpn_demo.py'
    small = {'model.backbone.base_channels': 8, 'model.backbone.stem_channels': 8}
    cfg = load_config(two_stages, {**small, 'model.neck.in_channels': [8, 16, 32, 64]})
    width = cfg.model.neck.out_channels
    if kind == 'RetinaNet':
        cfg.model = dict(
            type='RetinaNet',
            data_preprocessor=cfg.model.data_preprocessor,
            backbone=cfg.model.backbone,
            neck=cfg.model.neck,
            bbox_head=dict(
                type='RetinaHead',
                num_classes=3,
                in_channels=width,
                feat_channels=8,
                stacked_convs=1,
                anchor_generator=dict(
                    type='AnchorGenerator',
                    octave_base_scale=4,
                    scales_per_octave=1,
                    ratios=[1.0],
                    strides=[4, 8, 16, 32, 64],
                ),
            ),
            test_cfg=dict(
                nms_pre=200, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
                max_per_img=20, min_bbox_size=0,
            ),
        )  # fmt: skip
    elif kind.startswith('RTMDet'):
        cfg.model = dict(
            type='RTMDet',
            data_preprocessor=cfg.model.data_preprocessor,
            backbone=cfg.model.backbone,
            neck=cfg.model.neck,
            bbox_head=dict(
                type=f'{kind}Head',
                num_classes=3,
                in_channels=width,
                feat_channels=8,
                stacked_convs=1,
                norm_cfg=dict(type='BN'),
                anchor_generator=dict(
                    type='MlvlPointGenerator', offset=0, strides=[4, 8, 16, 32, 64]
                ),
                bbox_coder=dict(type='DistancePointBBoxCoder'),
                **(dict(num_prototypes=4, dyconv_channels=4) if kind == 'RTMDetIns' else {}),
            ),
            test_cfg=dict(
                nms_pre=200, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
                max_per_img=20, min_bbox_size=0, mask_thr_binary=0.5,
            ),
        )  # fmt: skip
    elif kind == 'MaskRCNN':
        cfg.model.type = 'MaskRCNN'
        extractor = dict(cfg.model.roi_head.bbox_roi_extractor)
        extractor['roi_layer'] = dict(type='RoIAlign', output_size=14, sampling_ratio=0)
        classes = cfg.model.roi_head.bbox_head.num_classes
        cfg.model.roi_head.update(
            mask_roi_extractor=extractor,
            mask_head=dict(
                type='FCNMaskHead', num_convs=1, in_channels=width, conv_out_channels=8,
                num_classes=classes,
            ),
        )  # fmt: skip
        cfg.model.test_cfg.rcnn.mask_thr_binary = 0.5
    return cfg


def spread_out(model: torch.nn.Module) -> dict:
    """Weights with which an untrained detector is sure of some things, and no two scores tie."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and '.dw.' not in name:
            torch.nn.init.kaiming_normal_(parameter)
        if name.endswith('.dw.weight'):  # one that is as at the start is folded away
            parameter.data += 0.1 * torch.randn_like(parameter)
        if parameter.ndim > 1 and name.endswith(('cls.weight', 'reg.weight')):
            parameter.data *= 0.02 if 'cls' in name else 0.005
        if name.endswith(
            'rtm_reg.bias'
        ):  # as far from a point as the image is wide: many end out of it
            parameter.data += 4
    return model.state_dict()


@needs_mmdeploy
@pytest.mark.parametrize('kind', ['RetinaNet', 'RTMDet', 'RTMDetIns', 'FasterRCNN', 'MaskRCNN'])
def test_detectors_find_the_same(kind, tmp_path):
    cfg = detector(kind)
    model = build_model(cfg)
    torch.save({'state_dict': spread_out(model)}, tmp_path / 'model.pth')
    out = tmp_path / 'whole.onnx'
    written = export_detector(cfg, tmp_path / 'model.pth', out, SIZE)
    masks = ['masks'] if kind in ('RTMDetIns', 'MaskRCNN') else []
    assert written.outputs == ['boxes', 'scores', 'labels', *masks]
    assert written.compared > 4 and written.difference < 1e-3

    model.load_state_dict(torch.load(tmp_path / 'model.pth')['state_dict'])
    graph = read_graph(out)
    assert written.size is None and graph.size is None
    for size in (SIZE, (160, 64)):  # the second is no size that the export has compared
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ours = detectors.Detections(model.eval(), size).eval()(image)
        theirs = tuple(graph(image))
        same = agreement(ours, theirs)
        assert same.compared > 4 and same.lacking <= 0.1 * same.compared
        assert [part.shape[1:] for part in theirs] == [part.shape[1:] for part in ours]


@needs_mmdeploy
def test_a_size_that_is_not_free(tmp_path, monkeypatch):
    cfg, out = detector('RetinaNet'), tmp_path / 'whole.onnx'
    torch.save({'state_dict': spread_out(build_model(cfg))}, tmp_path / 'model.pth')

    def refused(*_):
        raise InputError('this model takes no other size')

    monkeypatch.setattr(detectors, '_another', refused)
    written = export_detector(cfg, tmp_path / 'model.pth', out, SIZE)
    assert written.size == read_graph(out).size == SIZE
    assert list(export_lines(written, 'onnxruntime'))[1] == (
        'other sizes than 64x96 failed: this model takes no other size'
    )


@needs_mmdeploy
def test_what_asks_for_more_than_an_image_is_said(tmp_path, monkeypatch):
    cfg = detector('RetinaNet')
    monkeypatch.setattr(detectors.Detections, 'sample', lambda self: None)
    with pytest.raises(InputError, match=r'RetinaNet finds nothing in an image alone \(Attribute'):
        export_detector(cfg, None, tmp_path / 'x.onnx', SIZE)
    assert not list(tmp_path.iterdir())


def test_what_counts_as_the_same():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 20]])
    ours = (boxes, torch.tensor([0.9, 0.5]), torch.tensor([1, 2]))
    assert agreement(ours, ours).lacking == 0 and agreement(ours, ours).compared == 4
    moved = (boxes + 0.2, *ours[1:])
    assert agreement(ours, moved).lacking == 4
    other = (*ours[:2], torch.tensor([1, 3]))
    assert agreement(ours, other).lacking == 2
    none = (boxes[:0], torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert agreement(ours, none).lacking == 2 and agreement(none, none).compared == 0
    # Of two that overlap and are equally likely, each has kept another; the shifted one lets a
    # third live that the other suppresses.
    scores, labels = torch.tensor([0.9, 0.50001]), torch.tensor([1, 2])
    shifted = torch.cat([boxes + torch.tensor([[0.0], [2.0]]), boxes[1:] - 2])
    lives = (shifted, torch.tensor([0.9, 0.50002, 0.45]), torch.tensor([1, 2, 2]))
    tie = agreement((boxes, scores, labels), lives)
    assert (tie.compared, tie.lacking, tie.tied) == (5, 0, 3)
    likelier = (shifted[:2], torch.tensor([0.9, 0.6]), labels)
    found = agreement((boxes, scores, labels), likelier)
    assert (found.lacking, found.tied) == (1, 1)
    unsure = (boxes, torch.tensor([0.9, 0.2]), torch.tensor([1, 2]))
    assert agreement(unsure, tuple(part[:1] for part in unsure)).lacking == 0


def test_a_classifier_is_no_detector(tmp_path):
    pytest.importorskip('mmpretrain')
    cfg = load_config('configs/demo/resnet18_bnet3_demo.py')
    with pytest.raises(InputError, match='ImageClassifier is no detector of MMDetection'):
        export_detector(cfg, None, tmp_path / 'x.onnx', SIZE)


@needs_mmdeploy
def test_a_detector_that_is_sure_of_nothing_is_told_from_a_wrong_graph(tmp_path, monkeypatch):
    Image.new('RGB', SIZE[::-1]).save(tmp_path / 'photo.png')
    lost = detectors.Agreement(compared=20, lacking=6, tied=0, score=0.0)
    monkeypatch.setattr(detectors, 'agreement', lambda *_: lost)
    monkeypatch.setattr(detectors, 'SCORE', 0.99)
    arguments = (detector('RetinaNet'), None, tmp_path / 'out.onnx', SIZE)
    with pytest.raises(InputError, match=r'6 of 20 .* sure of nothing in this photo'):
        export_detector(*arguments, tmp_path / 'photo.png')
    with pytest.raises(InputError, match=r'6 of 20 .* Give a photo'):
        export_detector(*arguments)
    assert not (tmp_path / 'out.onnx').exists()


def test_without_mmdeploy_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(rewriters, 'REGISTERED', ('not_there',))
    with pytest.raises(InputError, match='pip install --no-deps mmdeploy'):
        export_detector(detector('RetinaNet'), None, tmp_path / 'x.onnx', SIZE)
    assert not list(tmp_path.iterdir())


@needs_mmdeploy
@pytest.mark.parametrize('name', ['x.onnx', 'x.xml'])
def test_openvino_finds_the_same(name, tmp_path):
    pytest.importorskip('openvino')
    half = name == 'x.xml'
    cfg = detector('RetinaNet' if half else 'FasterRCNN')
    torch.save({'state_dict': spread_out(build_model(cfg))}, tmp_path / 'model.pth')
    written = export_detector(
        cfg, tmp_path / 'model.pth', tmp_path / name, SIZE, runtime='openvino', half=half
    )
    assert written.compared > 4 and (written.cost is not None) == half
    if half:
        assert written.cost.same > 0.9 and written.cost.error < 0.02
        kernels = (tmp_path / 'x.xml').read_text().count(ROUTINE)
        assert kernels == 8  # one for each block of a ResNet-18


def test_boxes_have_four_numbers_in_a_graph(tmp_path):
    """What OpenVINO asks for, and what does not follow from the graph of a Cascade R-CNN."""
    openvino = pytest.importorskip('openvino')
    import onnx

    floats, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    describe = onnx.helper.make_tensor_value_info
    most = onnx.helper.make_tensor('most', whole, [1], [5])
    boxes, scores = describe('boxes', floats, 'bnc'), describe('scores', floats, 'bkn')
    nms = onnx.helper.make_node('NonMaxSuppression', ['boxes', 'scores', 'most'], ['kept'], 'nms')
    kept = describe('kept', whole, ['m', 3])
    graph = onnx.helper.make_graph([nms], 'x', [boxes, scores], [kept], [most])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 16)])
    onnx.save(model, str(tmp_path / 'x.onnx'))
    with pytest.raises(RuntimeError, match='boxes_dims'):
        openvino.Core().compile_model(str(tmp_path / 'x.onnx'), 'CPU')
    rewriters.tell_corners(tmp_path / 'x.onnx')
    compiled = openvino.Core().compile_model(str(tmp_path / 'x.onnx'), 'CPU')
    found = compiled([np.float32([[[0, 0, 2, 2], [5, 5, 9, 9]]]), np.float32([[[0.2, 0.9]]])])
    assert next(iter(found.values()))[0].tolist() == [0, 0, 1]


def test_a_runtime_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(InputError, match='openvino is not installed: pip install openvino'):
        read_graph(tmp_path / 'x.onnx', 'openvino')


@needs_mmdeploy
@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_eight_bits(runtime, tmp_path):
    if runtime == 'openvino':
        pytest.importorskip('nncf')
    cfg = detector('FasterRCNN')
    torch.save({'state_dict': spread_out(build_model(cfg))}, tmp_path / 'model.pth')
    (tmp_path / 'photos').mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'photos/{i}.png')
    out = tmp_path / 'small.onnx'
    options = dict(runtime=runtime, int8=tmp_path / 'photos')
    written = export_detector(cfg, tmp_path / 'model.pth', out, SIZE, **options)
    assert written.cost.photos == 2 and written.cost.error < 0.5
    # Backbone, neck and heads; the last convolutions and the postprocessing are as they were.
    import onnx

    kinds = [node.op_type for node in onnx.load(str(out)).graph.node]
    assert kinds.count('QuantizeLinear') > 20 and 'NonMaxSuppression' in kinds


def test_what_counts_as_found_again():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 20]])
    before = (boxes, torch.tensor([0.8, 0.4]), torch.tensor([1, 2]))
    assert same_finds(before, before) == (1.0, 0.0)
    moved = (boxes + 1, torch.tensor([0.8, 0.35]), torch.tensor([1, 2]))
    assert same_finds(before, moved)[0] == 1.0 and 0 < same_finds(before, moved)[1] < 0.1
    assert same_finds(before, tuple(part[:1] for part in before))[0] == pytest.approx(2 / 3)
    assert same_finds(before, (*before[:2], torch.tensor([3, 3])))[0] == 0.0
    none = tuple(part[:0] for part in before)
    assert same_finds(none, none) == (None, 0.0)
