"""What is put in the place of fixed sizes computes the same, for images of any size."""

from __future__ import annotations

import pytest
import torch
from mmcv.cnn import build_conv_layer
from torch import nn

from bnet_mm.deploy.free_sizes import Multiplied, SamePadded, free_sizes
from bnet_mm.deploy.onnx import write_graph
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX

SIZES = ((37, 50), (32, 32), (5, 9))


def same(channels: int, k: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    cfg = dict(type='Conv2dAdaptivePadding')
    return build_conv_layer(cfg, channels, channels, k, stride=stride, dilation=dilation)


def convolutions() -> list[nn.Module]:
    shapes = ((3, 2), (5, 2), (3, 1, 2), (1, 1), (4, 3), (3, 2))
    return [layer for shape in shapes for layer in (same(2, *shape), nn.SiLU())]


def upsampled() -> list[nn.Module]:
    wrappers = pytest.importorskip('mmseg.models.utils.wrappers')
    options = (dict(mode='nearest'), dict(mode='bilinear', align_corners=True))
    return [wrappers.Upsample(scale_factor=2, **each) for each in options]


@pytest.mark.parametrize(
    ('layers', 'replaced', 'count'),
    [
        (lambda: [nn.AdaptiveAvgPool2d((3, None)), nn.AdaptiveAvgPool2d(2)], None, 2),
        (convolutions, SamePadded, 6),
        (upsampled, Multiplied, 2),
    ],
)
@torch.no_grad()
def test_it_computes_the_same(layers, replaced, count):
    net = nn.Sequential(*layers())
    kinds = [type(layer) for layer in net]
    for height, width in SIZES:
        images = torch.randn(2, 2, height, width)
        expected = net(images)
        with free_sizes(net):
            changed = [layer for layer, kind in zip(net, kinds) if type(layer) is not kind]
            assert len(changed) == count and (replaced is None or type(changed[0]) is replaced)
            torch.testing.assert_close(net(images), expected)
        assert [type(layer) for layer in net] == kinds


def test_what_may_need_more_is_left():
    wide = same(2, 1, 2)  # its padding would be negative
    pooled = nn.AdaptiveAvgPool2d(1)  # which exporters know
    net = nn.Sequential(wide, pooled)
    with free_sizes(net):
        assert [*net] == [wide, pooled]


@pytest.mark.parametrize('dynamo', [True, False] if HAS_DYNAMO_ONNX else [False])
@torch.no_grad()
def test_deep_networks_of_paddings_that_follow_the_size(dynamo, tmp_path):
    """Of deeper ones torch's exporter does not come to an end otherwise."""
    pytest.importorskip('onnxruntime')
    net = nn.Sequential(*convolutions(), *convolutions(), nn.Flatten(2)).eval()
    out = tmp_path / 'x.onnx'
    write_graph(net, torch.randn(2, 2, 97, 95), out, ['maps'], free_size=True, dynamo=dynamo)
    for height, width in (*SIZES, (128, 160)):
        images = torch.randn(3, 2, height, width)
        torch.testing.assert_close(read_graph(out)(images)[0], net(images), atol=1e-5, rtol=1e-4)
