"""Heat maps: the line exactly, known enhancement exactly, plain norms flat, odd images drawn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from bnet_mm.analysis.heatmap import count_above, fit_line, heat_maps
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET
from bnet_mm.openmmlab.models import build_model

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/demo/resnet18_bnet3_demo.py'


@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 7), st.integers(0, 2**31))
def test_the_line_is_numpys(n, c, size, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(5, 2, (2, n, c, size, size))
    slope, intercept = fit_line(torch.from_numpy(x), torch.from_numpy(y))
    for i in range(c):
        expected = np.polyfit(x[:, i].ravel(), y[:, i].ravel(), 1)
        np.testing.assert_allclose([slope[i], intercept[i]], expected, rtol=1e-6, atol=1e-8)
    above = sum(y[:, i] > slope[i].item() * x[:, i] + intercept[i].item() + 1e-9 for i in range(c))
    assert np.array_equal(count_above(torch.from_numpy(x), torch.from_numpy(y)).numpy(), above)


@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_a_plain_norms_scale_and_shift_is_flat(seed, dtype):
    torch.manual_seed(seed)
    x = 3 * torch.randn(2, 5, 9, 9, dtype=dtype) + 1
    scale, shift = torch.randn(2, 5, 1, 1, dtype=dtype)
    assert not count_above(x, x * scale + shift).any()
    assert not count_above(x, torch.zeros_like(x)).any()
    layer = BNET(5, k=3).eval()
    nn.init.normal_(layer.norm.running_mean)
    with torch.no_grad():
        layer.dw.weight.mul_(torch.randn(5, 1, 1, 1))
    [[found]] = heat_maps(nn.Sequential(layer), x[:1].float(), ['0'])
    assert not found.above.any()


def test_known_enhancement_is_marked_exactly():
    # Every tap beside the centre sees zeros, but beside the marked positions, where channels 1 and
    # 2 (not 0) gather from their right neighbour what the line cannot explain.
    x = torch.zeros(1, 3, 8, 8)
    marked = torch.zeros(8, 8, dtype=torch.bool)
    for i, j in ((1, 2), (4, 4), (6, 1)):
        marked[i, j] = True
        x[0, :, i, j + 1] = 1.0
    layer = BNET(3, k=3).eval()
    with torch.no_grad():
        layer.norm.running_var.fill_(1 - layer.norm.eps)
        layer.dw.weight[1:, 0, 1, 2] = 4.0
    model = nn.Sequential(layer)
    [[found]] = heat_maps(model, x, ['0'])
    assert found.channels == 3
    assert torch.equal(found.above, 2 * marked.long())


@pytest.fixture
def checkpoint(tmp_path):
    """The demo's classifier with random weights and kernels."""
    torch.manual_seed(0)
    model = build_model(load_config(CONFIG))
    for module in model.modules():
        if isinstance(module, BNET):
            nn.init.normal_(module.dw.weight)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    return tmp_path / 'x.pth'


def test_odd_images_videos_and_wrong_input(checkpoint, call_tool, tmp_path, demo_ucf101):
    rng = np.random.default_rng(0)
    sizes = {'tiny.png': (5, 3), 'portrait.jpg': (300, 90), 'wide.png': (40, 700)}
    for name, size in sizes.items():
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (*size, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'grey.png'), rng.integers(0, 255, (120, 90), np.uint8))
    video = next(demo_ucf101.rglob('*.avi'))
    images = [tmp_path / name for name in (*sizes, 'grey.png')]
    result = call_tool(
        'analyze.py', 'heatmap', CONFIG, checkpoint, *images, video, '--frames', 2,
        '--out', 'maps', check=True,
    )  # fmt: skip
    written = [tmp_path / line for line in result.stdout.split() if line.endswith('.png')]
    assert len(written) == 6
    for file in written:
        with Image.open(file) as sheet:
            assert min(sheet.size) > 100 and np.asarray(sheet).std() > 10
    (tmp_path / 'broken.png').write_bytes(b'nothing')
    plain = ROOT / 'configs/resnet18_bn_100e_in1k.py'
    for args, sentence in (
        ((CONFIG, checkpoint, tmp_path / 'gone.png'), 'there is no image'),
        ((CONFIG, checkpoint, tmp_path / 'broken.png'), 'cannot be read as an image'),
        ((plain, checkpoint, images[0]), 'kernels, the model plain batch normalization'),
    ):
        wrong = call_tool('analyze.py', 'heatmap', *args)
        assert wrong.returncode == 2 and sentence in wrong.stderr
        assert 'Traceback' not in wrong.stderr
    assert 'zero outside' not in result.stderr
    baseline = build_model(load_config(ROOT / 'configs/demo/resnet18_bn_demo.py'))
    torch.save({'state_dict': baseline.state_dict(), 'meta': {}}, tmp_path / 'bn.pth')
    flat = call_tool(
        'analyze.py', 'heatmap', CONFIG, 'bn.pth', images[0], '--out', 'flat', check=True
    )
    assert 'the kernels in bn.pth are zero outside their centres' in flat.stderr


def test_bnets_of_heads_where_they_see_the_whole_image(tiny_segmentor, tiny_config):
    norm = {'norm_cfg.type': 'BNET', 'norm_cfg.k': 3}
    head = {f'model.decode_head.{key}': value for key, value in norm.items()}
    segmentor = build_model(load_config(tiny_segmentor, head))
    layers = ['backbone.layer4.1.bn2', 'decode_head.bottleneck.bn']
    of_images = heat_maps(segmentor, torch.randn(2, 3, 64, 96), layers)
    assert [[m.layer for m in maps] for maps in of_images] == [layers, layers]
    assert of_images[1][1].above.shape == (8, 12)

    box_head = {
        'model.roi_head.bbox_head.type': 'Shared4Conv1FCBBoxHead',
        **{f'model.roi_head.bbox_head.{key}': value for key, value in norm.items()},
    }
    detector = build_model(load_config(tiny_config, box_head))
    name = 'roi_head.bbox_head.shared_convs.0.bn'
    with pytest.raises(InputError, match=f'{name} sees regions of an image'):
        heat_maps(detector, torch.randn(1, 3, 64, 96), [name])


def test_frames_of_a_clip_are_shifted_between(tiny_recognizer):
    options = {'model.backbone.type': 'ResNetTSM', 'model.backbone.num_segments': 4,
               'model.backbone.shift_div': 8}  # fmt: skip
    model = build_model(load_config(tiny_recognizer, options))
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, BNET):
            nn.init.normal_(module.dw.weight)
    layers = ['backbone.layer1.1.conv2.bn', 'backbone.layer4.1.conv2.bn']
    clip = torch.randn(4, 3, 64, 64)
    moving = heat_maps(model, clip, layers)
    assert len(moving) == 4 and moving[3][1].above.shape == (2, 2)
    # One image is a clip that stands still.
    [still] = heat_maps(model, clip[:1], layers)
    same = heat_maps(model, clip[:1].expand(4, -1, -1, -1), layers)
    assert torch.equal(still[0].above, same[0][0].above)
    assert not torch.equal(still[0].above, moving[0][0].above)
