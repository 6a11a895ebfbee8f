"""The doctor: its facts are those of the built model, and each warning has its one cause."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.optim import SGD

from bnet_mm.analysis.doctor import examine
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tiny_config):
    def load(**options):
        return load_config(tiny_config, {k.replace('__', '.'): v for k, v in options.items()})

    return load


def build(cfg):
    with MODELS.switch_scope_and_registry('mmdet') as models:
        return models.build(cfg.model)


def warned(examination, words):
    return [warning for warning in examination.warnings if words in warning]


def test_facts_of_each_norm(config):
    found = examine(
        config(
            model__backbone__norm_eval=True,
            model__backbone__frozen_stages=1,
            optim_wrapper__paramwise_cfg=dict(norm_decay_mult=0.0),
        )
    )
    assert len(found.norms) == 8
    first, last = found.norms[0], found.norms[-1]
    assert (last.name, last.type, last.k, last.dilation) == ('backbone.layer4.1.bn2', 'BNET', 5, 1)
    assert last.position == 'C'
    assert last.trainable
    assert last.frozen
    assert last.weight_decay == 0
    assert last.lr == load_config_lr(config())
    assert last.group is not None
    assert not first.trainable
    assert last.from_dirac == 0
    assert found.others == {'BatchNorm2d': 12}
    assert warned(found, '2 of 8 BNET kernels are frozen (model.backbone.frozen_stages=1)')
    assert not warned(examine(config()), 'frozen')


def load_config_lr(cfg):
    return cfg.optim_wrapper.optimizer.lr


def test_positions_of_other_blocks(config):
    found = examine(config(model__backbone__norm_cfg=dict(type='BNET', positions='all')))
    at = {norm.name: norm.position for norm in found.norms}
    assert at['backbone.bn1'] == '-'
    assert at['backbone.layer1.0.bn1'] == 'A'
    assert at['backbone.layer1.0.bn2'] == 'C'


def test_bnet_that_no_part_reads(config):
    cfg = config(model__backbone__norm_cfg=dict(type='BN', _delete_=True))
    cfg.norm_cfg = dict(type='BNET')
    assert warned(examine(cfg), 'norm_cfg says BNET and no norm of the model is one')
    cfg.pop('norm_cfg')
    assert warned(examine(cfg), 'no BNET is asked for')
    assert not warned(examine(config()), 'BNET and no norm')


def test_kernels_of_a_checkpoint(config, tmp_path):
    model = build(config())
    with torch.no_grad():
        model.backbone.layer2[0].bn2.dw.weight.fill_(1)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'whole.pth')
    found = examine(config(), str(tmp_path / 'whole.pth'))
    off = {norm.name: norm.from_dirac for norm in found.norms}
    assert off['backbone.layer2.0.bn2'] == pytest.approx(24 / 25)
    assert off['backbone.layer2.1.bn2'] == 0

    state = {k: v for k, v in model.state_dict().items() if not k.startswith('backbone')}
    torch.save({'state_dict': state}, tmp_path / 'head.pth')
    with pytest.raises(InputError, match='it lacks 100 tensors, backbone'):
        examine(config(), str(tmp_path / 'head.pth'))
    with pytest.raises(InputError, match='there is no file'):
        examine(config(), str(tmp_path / 'none.pth'))


def test_a_training_from_random_weights(config, tmp_path):
    words = 'every kernel is at Dirac and no pretrained weights are named'
    assert warned(examine(config()), words)
    assert not warned(examine(config(load_from='x.pth')), words)


def test_kernels_that_no_optimizer_group_has(config):
    """A constructor of the user's own that goes by the classes it knows."""

    @OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
    class KnownClassesOnly(DefaultOptimWrapperConstructor):
        def __call__(self, model):
            known = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
            return OptimWrapper(SGD([p for m in known for p in m.parameters()], lr=0.1))

    assert not warned(examine(config()), 'never trained')
    assert warned(
        examine(config(optim_wrapper__constructor='KnownClassesOnly')),
        'and 5 more: in no optimizer group, and never trained',
    )


def test_a_config_without_a_model(config):
    cfg = config()
    cfg.model = None
    with pytest.raises(InputError, match='the config has no model'):
        examine(cfg)


def test_synchronized_statistics_of_one_process(config):
    found = examine(config(model__backbone__norm_cfg=dict(type='SyncBNET', k=3)))
    assert warned(found, 'synchronized statistics, and this is one process')
    assert found.norms[0].type == 'SyncBNET'
    assert warned(examine(config(sync_bn='mmcv')), "say sync_bn='torch'")
    assert not warned(examine(config()), 'processes')


def test_a_norm_that_is_not_reached(config, monkeypatch):
    assert not warned(examine(config()), 'find_unused_parameters')
    cfg = config(model__backbone__num_stages=4, model__backbone__out_indices=(0, 1, 2, 3))
    cfg.model.neck.norm_cfg = dict(type='BNET', k=3)
    cfg.model.neck.add_extra_convs = False
    cfg.model.neck.start_level = 0
    model = build(cfg)

    # A second lateral branch that nothing calls, as an auxiliary head without a loss is.
    def built(*args):
        model.spare = torch.nn.Sequential(type(model.backbone.layer1[0].bn2)(4, k=3))
        return model

    monkeypatch.setattr('bnet_mm.analysis.doctor.build_model', built)
    assert warned(examine(cfg), 'spare.0: not reached by a forward pass')


def test_command_line(tiny_config, tiny_recognizer, run_tool, call_tool):
    said = run_tool('doctor.py', tiny_config, check=True, env=None).stdout
    assert '8 BNET; other norms: 12 BatchNorm2d' in said
    facts = json.loads(call_tool('doctor.py', tiny_recognizer, '--json', check=True).stdout)
    assert facts['norms'][0]['name'] == 'backbone.layer1.0.conv2.bn'
    wrong = call_tool('doctor.py', tiny_config, 'none.pth')
    assert wrong.returncode == 2
    assert 'checkpoint none.pth: there is no file' in wrong.stderr


def test_it_is_read_at_80_columns(run_tool):
    """Equal norms share a row, and every fact of them is there."""
    config = ROOT / 'configs/faster_rcnn_r50_bnet5_fpn_1x.py'
    said = run_tool('doctor.py', config, check=True, env={**os.environ, 'COLUMNS': '80'}).stdout
    assert max(map(len, said.splitlines())) <= 80 and '…' not in said
    shown = ' '.join(said.split())
    for facts in (
        'layer1.0.bn3 ... layer1.2 (3) BNET-5 C no frozen 0.0 %',
        'layer2.0.bn3 ... layer4.2 (13) BNET-5 C yes frozen 0.0 %',
        'Names below backbone',
        'lr 0.02, weight decay 0.0001',
        'computed by cpu: ',
        '16 BNET; other norms: 37 BatchNorm2d',
    ):
        assert facts in shown, facts
