"""Optimizer groups: what the norm's scale and shift get, the kernel and the bias get."""

from __future__ import annotations

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

import bnet_mm

RULES = [
    {},
    dict(norm_decay_mult=0.0),
    dict(bias_decay_mult=0.5, bias_lr_mult=2.0),
    dict(dwconv_decay_mult=0.25),
    dict(norm_decay_mult=0.1, bias_decay_mult=0.5, bias_lr_mult=2.0, dwconv_decay_mult=0.25),
    dict(custom_keys={'1': dict(lr_mult=0.1, decay_mult=3.0)}),
]


def groups(model: nn.Module, rules: dict) -> dict[str, tuple[float, float]]:
    """Returns learning rate and weight decay of each parameter, by name."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01),
            paramwise_cfg=dict(**rules),
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    found = [
        (names[id(p)], (group['lr'], group['weight_decay']))
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    ]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return dict(found)


@pytest.mark.parametrize('rules', RULES)
@pytest.mark.parametrize('scope', [None, 'mmdet'])
def test_kernel_and_bias_are_grouped_as_scale_and_shift(rules, scope):
    bn = groups(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), rules)
    with DefaultScope.overwrite_default_scope(scope):
        bnet = groups(nn.Sequential(nn.Conv2d(3, 4, 1), bnet_mm.BNET(4, k=3)), rules)
    assert bnet['1.dw.weight'] == bn['1.weight']
    assert bnet['1.dw.bias'] == bn['1.bias']
    assert bnet['0.weight'] == bn['0.weight']
    assert bnet['0.bias'] == bn['0.bias']


def test_a_key_of_its_own_for_the_kernel():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), bnet_mm.BNET(4, k=3))
    found = groups(model, dict(custom_keys={'dw.weight': dict(decay_mult=0.0)}))
    assert found['1.dw.weight'] == (0.1, 0.0)
    assert found['1.dw.bias'] == found['0.weight'] == (0.1, 0.01)
