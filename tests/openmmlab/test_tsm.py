"""TSM's optimizer groups: every parameter once, and the kernels with the norms."""

from __future__ import annotations

import pytest
from abilities import needs_mmaction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from bnet_mm.layers import DepthwiseTransform


@needs_mmaction
@pytest.mark.parametrize('partial_bn', [True, False])
def test_every_parameter_is_in_one_group_and_kernels_are_not_decayed(partial_bn):
    __import__('mmaction.models')
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(
            dict(
                type='Recognizer2D',
                backbone=dict(
                    type='ResNetTSM',
                    depth=18,
                    pretrained=None,
                    norm_cfg=dict(type='BNET', k=3),
                    partial_bn=partial_bn,
                ),
                cls_head=dict(type='TSMHead', num_classes=4, in_channels=512),
            )
        )
        model.train()
        wrapper = build_optim_wrapper(
            model,
            dict(
                constructor='TSMOptimWrapperConstructor',
                optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
                paramwise_cfg=dict(fc_lr5=True),
            ),
        )
    found = [
        (id(p), (group['lr'], group['weight_decay']))
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    ]
    settings = dict(found)
    assert len(found) == len(settings)
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for p in names.values()} <= settings.keys()
    kernels = [m for m in model.modules() if isinstance(m, DepthwiseTransform)]
    assert len(kernels) == 8
    for kernel in kernels:
        for parameter in (kernel.weight, kernel.bias):
            if parameter.requires_grad:
                assert settings[id(parameter)] == (0.1, 0)
    stem = model.backbone.conv1
    assert isinstance(stem.bn, nn.BatchNorm2d)
    assert settings[id(stem.conv.weight)] == (0.1, 0.01)
    assert settings[id(stem.bn.weight)] == (0.1, 0)
    assert settings[id(model.cls_head.fc_cls.weight)] == (0.5, 0.01)
