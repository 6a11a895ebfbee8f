"""Attention maps: Grad-CAM where it is known in closed form, activation exactly, odd images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bnet_mm.analysis import images
from bnet_mm.analysis.attention import attention_maps
from bnet_mm.analysis.layers import last_blocks
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET
from bnet_mm.openmmlab.models import build_model

ROOT = Path(__file__).resolve().parents[2]
CLASSIFIER = ROOT / 'configs/demo/resnet18_bnet3_demo.py'
TWIN = ROOT / 'configs/demo/resnet18_bn_demo.py'


def built(config, **options) -> nn.Module:
    torch.manual_seed(2)
    model = build_model(load_config(config, options))
    for module in model.modules():
        if isinstance(module, BNET):
            nn.init.normal_(module.dw.weight, std=0.3)
    return model


def test_before_pooling_and_a_linear_head_it_is_the_class_activation_map():
    model = built(CLASSIFIER)
    x = torch.randn(1, 3, 96, 64)
    features = model.backbone(x)[-1].detach()
    logits = model(x, mode='tensor')
    for label in (None, 3):
        [seen] = attention_maps(model, x, ['backbone.layer4.1'], label)
        chosen = logits.argmax().item() if label is None else label
        assert seen.label == chosen
        assert seen.share == pytest.approx(logits.softmax(1)[0, chosen].item(), rel=1e-5)
        weights = model.head.fc.weight[chosen] / features[0, 0].numel()
        expected = (weights[:, None, None] * features[0]).sum(0).relu()
        torch.testing.assert_close(seen.maps[0].map, expected.detach())


def test_of_a_segmentor_it_speaks_for_the_pixels_of_the_class(tiny_segmentor):
    model = built(tiny_segmentor)
    x = torch.randn(1, 3, 64, 64)
    logits = model(x, mode='tensor').detach()
    found = logits.argmax(1)
    label = found.flatten().mode().values.item()
    [seen] = attention_maps(model, x, ['decode_head.conv_seg'])
    share = (found == label).float().mean().item()
    assert (seen.label, seen.share) == (label, pytest.approx(share))
    torch.testing.assert_close(seen.maps[0].map, (share * logits[0, label]).relu())


def test_of_a_detector_it_is_activation(tiny_config):
    model = built(tiny_config)
    x = torch.randn(1, 3, 64, 96)
    [seen] = attention_maps(model, x, last_blocks(model))
    assert seen.label is None and len(seen.maps) == 4
    for attention, features in zip(seen.maps, model.backbone(x)):
        torch.testing.assert_close(attention.map, features[0].square().sum(0).detach())
    with pytest.raises(InputError, match='has no classes of images'):
        attention_maps(model, x, last_blocks(model), 1)


def test_of_a_network_with_branches_it_is_of_the_finest_one(tiny_segmentor):
    torch.manual_seed(2)
    stage = dict(num_modules=2, block='BASIC')
    sizes = [[8], [4, 8], [4, 8, 12], [4, 8, 12, 16]]
    extra = {
        f'stage{i}': {
            **stage,
            **dict(
                num_branches=len(channels), num_blocks=(2,) * len(channels), num_channels=channels
            ),
        }
        for i, channels in enumerate(sizes, start=1)
    }
    extra['stage1'].update(num_modules=1, block='BOTTLENECK')
    backbone = dict(
        _delete_=True, type='HRNet', extra=extra, norm_cfg=dict(type='BNET', k=3), norm_eval=False
    )
    head = {'model.decode_head.in_channels': 16, 'model.decode_head.in_index': 3}
    model = built(tiny_segmentor, **head, **{'model.backbone': backbone})
    layers = last_blocks(model)
    assert layers[1:] == [f'backbone.stage{i}.1.branches.0.1' for i in (2, 3, 4)]
    [seen] = attention_maps(model, torch.randn(1, 3, 64, 96), layers)
    assert [m.map.shape for m in seen.maps] == [(16, 24)] * 4
    assert len({m.map.sum().item() for m in seen.maps}) == 4


def test_a_clip_has_a_map_for_each_frame(tiny_recognizer):
    options = {'model.backbone.type': 'ResNetTSM', 'model.backbone.num_segments': 4,
               'model.backbone.shift_div': 8}  # fmt: skip
    model = built(tiny_recognizer, **options)
    clip = torch.randn(4, 3, 64, 64)
    still, moving = (attention_maps(model, x, last_blocks(model)) for x in (clip[:1], clip))
    assert len(still) == 1 and len(moving) == 4
    assert len({seen.label for seen in moving}) == 1
    # Frames of the same content at different places in the clip see each other.
    same = attention_maps(model, clip[:1].expand(4, -1, -1, -1), last_blocks(model))
    torch.testing.assert_close(same[0].maps[0].map, still[0].maps[0].map)
    assert not torch.allclose(same[0].maps[3].map, moving[0].maps[3].map)


def test_maps_and_classes_that_are_not_there():
    model = built(CLASSIFIER)
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(InputError, match='no class 1000: the model has 0 to 999'):
        attention_maps(model, x, last_blocks(model), 1000)
    with pytest.raises(InputError, match=r'head\.fc gives no map'):
        attention_maps(model, x, ['head.fc'])


def test_images_are_looked_at_in_the_size_of_the_test():
    assert images.tested_side(load_config(CLASSIFIER)) == 112
    segmentor = load_config(ROOT / 'configs/demo/pspnet_r18_bnet3_demo.py')
    assert images.tested_side(segmentor) is None


def test_two_models_side_by_side(call_tool, tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (('tiny.png', (4, 3, 3)), ('tall.png', (900, 60, 3)), ('grey.png', (80, 90))):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, size, np.uint8))
    (tmp_path / 'other').mkdir()
    cv2.imwrite(str(tmp_path / 'other/grey.png'), rng.integers(0, 255, (60, 60), np.uint8))
    for config, file in ((CLASSIFIER, 'bnet.pth'), (TWIN, 'bn.pth')):
        meta = {'dataset_meta': {'classes': [f'class of {i}' for i in range(1000)]}}
        torch.save({'state_dict': built(config).state_dict(), 'meta': meta}, tmp_path / file)
    pairs = (CLASSIFIER, 'bnet.pth', TWIN, 'bn.pth')
    images = ('tiny.png', 'tall.png', 'grey.png', 'other/grey.png')
    shown = call_tool('analyze.py', 'attention', *pairs, *images, check=True).stdout
    written = [tmp_path / line for line in shown.split() if line.endswith('.png')]
    assert len(set(written)) == 4  # two of them are called grey.png
    for file in written:
        with Image.open(file) as sheet:
            assert sheet.size[1] > 300 and np.asarray(sheet).std() > 10
    for args, sentence in (
        (pairs, 'and then images'),
        ((CLASSIFIER, 'bnet.pth', 'gone.png'), 'there is no image gone.png'),
        ((TWIN, 'bnet.pth', 'grey.png'), 'kernels, the model plain batch normalization'),
        ((CLASSIFIER, 'bnet.pth', TWIN, 'grey.png'), 'and then images'),
    ):
        wrong = call_tool('analyze.py', 'attention', *args)
        assert wrong.returncode == 2 and sentence in wrong.stderr, wrong.stderr[-500:]
        assert 'Traceback' not in wrong.stderr
