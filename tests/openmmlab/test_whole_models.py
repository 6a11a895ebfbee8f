"""Models that the libraries themselves saved, with plain BN, and their BNET counterparts."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint, save_checkpoint

from bnet_mm.checkpoint import contents_of, convert, read_checkpoint, write_checkpoint
from bnet_mm.engine.config import load_config

DEMOS = {
    'mmdet': 'configs/demo/faster_rcnn_r18_bnet5_fpn_demo.py',
    'mmseg': 'configs/demo/pspnet_r18_bnet3_demo.py',
    'mmaction': 'configs/demo/tsn_r18_bnet3_demo.py',
}
CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BNET', k=3)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)


def build(library, plain):
    torch.manual_seed(int(plain))
    if library == 'mmpretrain':
        __import__('mmpretrain.models')
        cfg = Config(dict(model=CLASSIFIER)).model
    else:
        cfg = load_config(DEMOS[library]).model
    if plain:
        cfg.backbone.norm_cfg = dict(type='BN')
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(cfg)
    return model.double()


def tensors(outputs):
    """Flattens what a model returns in mode 'tensor'."""
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, (tuple, list)):
        for part in outputs:
            yield from tensors(part)


def outputs(model, library):
    model.eval()
    torch.manual_seed(0)
    shape = (2, 3, 3, 64, 64) if library == 'mmaction' else (2, 3, 64, 64)
    inputs = torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        if library == 'mmdet':
            return model.rpn_head(model.extract_feat(inputs))
        return model(inputs, mode='tensor')


@pytest.mark.parametrize('library', [*DEMOS, 'mmpretrain'])
def test_a_counterpart_with_bnet_loads_the_library_s_own_file(library, tmp_path):
    plain, bnet = build(library, plain=True), build(library, plain=False)
    for name, buffer in plain.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    checkpoint = {'state_dict': plain.state_dict(), 'meta': {'epoch': 1}, 'optimizer': {}}
    save_checkpoint(checkpoint, str(tmp_path / 'epoch_1.pth'))
    load_checkpoint(bnet, str(tmp_path / 'epoch_1.pth'), strict=True)
    expected = list(tensors(outputs(plain, library)))
    ours = list(tensors(outputs(bnet, library)))
    assert len(ours) == len(expected) > 0
    for a, b in zip(ours, expected):
        torch.testing.assert_close(a, b)

    k = bnet.backbone.get_submodule(
        'layer1.0.conv2.bn' if library == 'mmaction' else 'layer1.0.bn2'
    ).k
    found = convert(
        contents_of(read_checkpoint(tmp_path / 'epoch_1.pth')), to=library, what='model', k=k
    )
    assert found.unexplained == []
    write_checkpoint({'state_dict': found.state}, tmp_path / 'bnet.pth')
    again = build(library, plain=False)
    load_checkpoint(again, str(tmp_path / 'bnet.pth'), strict=True)
    for a, b in zip(tensors(outputs(again, library)), expected):
        torch.testing.assert_close(a, b)


def test_any_network_is_fitted_to_its_config_and_back(call_tool, tmp_path):
    pytest.importorskip('mmdet')
    from mmdet.models import CSPDarknet

    shape = dict(deepen_factor=0.33, widen_factor=0.125)
    for name, norm in (('bn', "type='BN'"), ('bnet', "type='BNET', k=5")):
        (tmp_path / f'{name}.py').write_text(
            f"""
default_scope = 'mmdet'
model = dict(
    type='RetinaNet',
    backbone=dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.125, norm_cfg=dict({norm})),
    neck=dict(type='FPN', in_channels=[32, 64, 128], out_channels=8, num_outs=5),
    bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128])),
)
"""
        )
    state = CSPDarknet(**shape).state_dict()
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in state.items()}}, tmp_path / 'a.pth')
    tool = 'convert_checkpoint.py'
    to_bnet = ('--config', tmp_path / 'bnet.py')
    said = call_tool(tool, tmp_path / 'a.pth', tmp_path / 'b.pth', *to_bnet, check=True).stdout
    assert 'CSPDarknet' in said and '7 BNET k=5' in said
    back = ('--config', tmp_path / 'bn.py')
    call_tool(tool, tmp_path / 'b.pth', tmp_path / 'c.pth', *back, check=True)
    again = read_checkpoint(tmp_path / 'c.pth')['state_dict']
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())

    whole = call_tool(tool, tmp_path / 'a.pth', 'd.pth', *to_bnet, '--what', 'model')
    assert whole.returncode == 2 and 'lacks' in whole.stderr and 'neck.' in whole.stderr
    both = call_tool(tool, tmp_path / 'a.pth', 'd.pth', *to_bnet, '--k', '5')
    assert both.returncode == 2 and '--k is for residual networks without --config' in both.stderr
