"""The lines on where a run's weights come from, for models as the libraries initialize them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from torchvision.models import resnet18

from bnet_mm.engine.weights import check_weights
from bnet_mm.errors import InputError

pytest.importorskip('mmpretrain.models')
NORMS = [dict(type='BN'), dict(type='BNET', k=3)]


@pytest.fixture(scope='module')
def state():
    torch.manual_seed(0)
    return {
        name: value.uniform_(0.5, 1.5) if value.is_floating_point() else value
        for name, value in resnet18(num_classes=3).state_dict().items()
    }


def run_of(norm, init_cfg=None, load_from=None, **options):
    """A model as a runner has it before the first step, and its config."""
    cfg = Config(
        dict(
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet', depth=18, norm_cfg=norm, init_cfg=init_cfg, **options),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=512),
            ),
            load_from=load_from,
        )
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    if load_from:
        load_checkpoint(model, load_from, map_location='cpu')
    return SimpleNamespace(cfg=cfg, model=model, hooks=[])


def saved(path, content):
    torch.save(content, path)
    return str(path)


def pretrained(file, **options):
    return dict(type='Pretrained', checkpoint=file, **options)


@pytest.mark.parametrize('norm', NORMS)
def test_a_backbone_s_tensors_are_counted(norm, state, tmp_path):
    file = saved(tmp_path / 'r18.pth', {'state_dict': state})
    [(warning, line)] = check_weights(run_of(norm, pretrained(file)))
    assert not warning
    assert line.startswith(
        f'Weights: backbone: 100 of 100 tensors from {file}; left over in it: fc'
    )
    assert line.endswith('; the rest from random values')

    part = {name: value for name, value in state.items() if name != 'layer4.1.conv1.weight'}
    [(warning, line)] = check_weights(run_of(norm, pretrained(saved(tmp_path / 'part.pth', part))))
    assert warning
    assert '99 of 100 tensors' in line and 'not from it: layer4.1.conv1.weight;' in line


@pytest.mark.parametrize('norm', NORMS)
def test_nothing_loaded_is_an_error_that_says_what_to_choose(norm, tmp_path):
    state = resnet18(num_classes=3).state_dict()
    two = {f'module.{e}.{name}': v for e in ('encoder_q', 'encoder_k') for name, v in state.items()}
    file = saved(tmp_path / 'two.pth', {'state_dict': two})
    with pytest.raises(InputError) as raised:
        list(check_weights(run_of(norm, pretrained(file))))
    said = str(raised.value)
    assert f'model.backbone.init_cfg: no tensor of {file} was loaded into backbone' in said
    assert "below 'module.encoder_q.' and 'module.encoder_k.'" in said
    assert "model.backbone.init_cfg.prefix='module.encoder_q.'" in said
    assert '--prefix module.encoder_q.' in said

    chosen = pretrained(file, prefix='module.encoder_q.')
    assert '100 of 100 tensors' in next(check_weights(run_of(norm, chosen)))[1]

    nested = saved(tmp_path / 'nested.pth', {'trunk': {'model': state}})
    with pytest.raises(InputError, match='an entry of the file in which the libraries do not look'):
        list(check_weights(run_of(norm, pretrained(nested))))
    other = saved(tmp_path / 'other.pth', {'encoder.weight': torch.rand(3)})
    with pytest.raises(InputError, match=r'another network; its names begin with encoder\.weight'):
        list(check_weights(run_of(norm, pretrained(other))))


@pytest.mark.parametrize('norm', NORMS)
def test_load_from_counts_the_whole_model(norm, tmp_path):
    donor = run_of(norm).model.state_dict()
    file = saved(tmp_path / 'model.pth', {'state_dict': donor})
    runner = run_of(norm, load_from=file)
    assert list(check_weights(runner)) == [(False, f'Weights: all: 102 of 102 tensors from {file}')]
    runner.cfg.resume = True
    assert f'resumed from {file}: 102 of 102 tensors' in next(check_weights(runner))[1]

    averaged = {name: v + 1 if v.is_floating_point() else v for name, v in donor.items()}
    own = {f'module.{name}': v for name, v in donor.items()}
    both = {'state_dict': averaged, 'ema_state_dict': {**own, 'steps': torch.ones(1)}}
    runner.cfg.load_from = saved(tmp_path / 'averaged.pth', both)
    runner.hooks = [EMAHook()]  # which gives a resumed training its own weights back
    assert '102 of 102 tensors' in next(check_weights(runner))[1]

    pair = {f'{one}.{name}': v for one in ('student', 'teacher') for name, v in donor.items()}
    semi = saved(tmp_path / 'semi.pth', {'state_dict': pair})
    with pytest.raises(InputError, match=r"below 'student\.' and 'teacher\.'.*--what model"):
        list(check_weights(run_of(norm, load_from=semi)))


def test_random_weights_that_are_kept_frozen_are_said():
    assert list(check_weights(run_of(NORMS[0]))) == [(False, 'Weights: all from random values')]
    frozen = run_of(NORMS[0], frozen_stages=1)
    assert 'WARNING: norm_eval or frozen_stages' in next(check_weights(frozen))[1]
