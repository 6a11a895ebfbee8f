"""Deformable convolutions are written as ONNX's own operator, and compute what mmcv's do."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from bnet_mm.deploy.deformable import with_deformable
from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.deploy.operators import operators_of, opset_of
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX

ops = pytest.importorskip('mmcv.ops')
pytest.importorskip('onnxruntime')


class Deformable(nn.Module):
    """Offsets and masks from the map itself, as in the `...Pack` modules."""

    def __init__(self, kind: str, **options):
        super().__init__()
        torch.manual_seed(0)
        self.conv = getattr(ops, kind)(8, 6, 3, **options)
        groups = options.get('deform_groups', 1)
        self.offset = nn.Conv2d(8, 18 * groups, 3, options.get('stride', 1), 1)
        self.masked = 'Modulated' in kind
        self.mask = nn.Conv2d(8, 9 * groups, 3, options.get('stride', 1), 1)

    def forward(self, input: Tensor) -> Tensor:
        masks = [self.mask(input).sigmoid()] if self.masked else []
        return self.conv(input, 3 * self.offset(input), *masks)


def written(model: nn.Module, input: Tensor, file, opset: int | None) -> None:
    """Exports a model, and skips the test where the runtime is older than the operator."""

    def export(opset: int | None) -> None:
        options = dict(dynamo=False) if HAS_DYNAMO_ONNX else {}
        torch.onnx.export(
            *(model, (input,), str(file)),
            input_names=['input'],
            output_names=['output'],
            opset_version=opset or 16,
            **options,
        )

    with_deformable(model, export, opset)


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('DeformConv2d', dict(padding=1)),
        ('DeformConv2d', dict(padding=1, stride=2, groups=2, deform_groups=4)),
        ('ModulatedDeformConv2d', dict(padding=1, deform_groups=2)),
        ('ModulatedDeformConv2d', dict(padding=1, bias=False)),
    ],
)
def test_it_computes_what_mmcvs_does(kind, options, tmp_path):
    model, file = Deformable(kind, **options).eval(), tmp_path / 'x.onnx'
    input = torch.randn(2, 8, 11, 13)
    written(model, input, file, None)
    assert 'DeformConv' in operators_of(file) and opset_of(file) == 19
    try:
        found = read_graph(file)(input)[0]
    except InputError as error:
        pytest.skip(str(error))
    with torch.no_grad():
        assert (found - model(input)).abs().max() < 1e-5


class ByFunction(Deformable):
    """Without a module of the convolution's, as in TOOD's head."""

    def __init__(self):
        super().__init__('DeformConv2d', padding=1)
        self.weight = self.conv.weight
        del self.conv

    def forward(self, input: Tensor) -> Tensor:
        return ops.deform_conv2d(input, self.offset(input), self.weight, 1, 1)


def test_a_function_is_found_while_it_is_written(tmp_path):
    written(ByFunction().eval(), torch.randn(2, 8, 11, 13), tmp_path / 'x.onnx', None)
    assert opset_of(tmp_path / 'x.onnx') == 19
    with pytest.raises(InputError, match='opset 17 has no deformable convolution: name 19'):
        written(ByFunction().eval(), torch.randn(2, 8, 11, 13), tmp_path / 'y.onnx', 17)


def test_a_backbone_with_them(tmp_path):
    pytest.importorskip('mmdet')
    pytest.importorskip('onnxscript')
    norm = dict(type='BNET', k=3)
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='RetinaNet',
                backbone=dict(type='ResNet', depth=50, base_channels=4, norm_cfg=norm,
                              dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
                              stage_with_dcn=(False, True, True, True)),
                neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=8, num_outs=5),
                bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8),
            ),
        )
    )  # fmt: skip
    try:
        export = export_onnx(cfg, None, tmp_path / 'x.onnx', 'backbone', (64, 96))
    except InputError as error:
        if 'cannot run' in str(error) or 'cannot read' in str(error):
            pytest.skip(str(error))
        raise
    assert export.difference < 1e-5 and 'DeformConv' in operators_of(export.path)
    pytest.importorskip('openvino')
    try:
        export_onnx(cfg, None, tmp_path / 'y.onnx', 'backbone', (64, 96), runtime='openvino')
    except InputError as error:  # not that torch's newer exporter does not know it
        assert 'openvino cannot read' in str(error) and 'does not know DeformConv' in str(error)
