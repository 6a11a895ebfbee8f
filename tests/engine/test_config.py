"""Command line options, as they arrive in the config."""

import pytest

from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.errors import InputError

STOCK = 'configs/faster_rcnn_r50_bnet5_fpn_1x.py'


def test_data_root_moves_datasets_and_evaluators():
    cfg = load_config(STOCK, {'data_root': '/photos', 'val_dataloader.dataset.data_root': '/val'})
    assert cfg.train_dataloader.dataset.data_root == '/photos/'
    assert cfg.val_dataloader.dataset.data_root == '/val'
    assert cfg.val_evaluator.ann_file == '/photos/annotations/instances_val2017.json'


def test_stock_schedule_is_the_papers():
    cfg = load_config(STOCK)
    assert cfg.model.backbone.norm_cfg == dict(type='BNET', k=5, requires_grad=True)
    assert (cfg.model.backbone.norm_eval, cfg.model.backbone.frozen_stages) == (True, 1)
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.param_scheduler[1].milestones == [8, 11]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.02, 0.9, 1e-4)
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.dataset.data_root == 'data/coco/'


def test_run_options(monkeypatch):
    monkeypatch.setattr('bnet_mm.engine.config.get_device', lambda: 'cuda')
    cfg = load_config(STOCK)
    set_run_options(cfg, config_path=STOCK, amp=True, auto_scale_lr=True, validate=False, seed=7)
    assert cfg.work_dir == 'work_dirs/faster_rcnn_r50_bnet5_fpn_1x'
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.auto_scale_lr.enable
    assert cfg.val_cfg is None and cfg.val_dataloader is None and cfg.val_evaluator is None
    assert cfg.randomness.seed == 7


def test_iterations_take_the_place_of_epochs():
    options = {'train_cfg.type': 'IterBasedTrainLoop', 'train_cfg.max_iters': 450,
               'train_cfg.val_interval': 150}  # fmt: skip
    cfg = load_config(STOCK, options)
    set_run_options(cfg, config_path=STOCK)
    assert 'max_epochs' not in cfg.train_cfg
    assert cfg.log_processor.by_epoch is False
    assert cfg.default_hooks.checkpoint.by_epoch is False
    assert cfg.default_hooks.checkpoint.interval == 150


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'param_scheduler.7.end': 3}, r'param_scheduler\.7\.end=3: the config has no such entry'),
        ({'train_cfg.max_iters': 100}, 'train_cfg.type=IterBasedTrainLoop'),
        ({'train_cfg.type': 'IterBasedTrainLoop'}, 'needs train_cfg.max_iters'),
    ],
)
def test_options_that_do_not_fit(options, sentence):
    with pytest.raises(InputError, match=sentence):
        set_run_options(load_config(STOCK, options), config_path=STOCK)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('model = dict(', 'is not valid Python'),
        ("_base_ = 'nowhere.py'", 'a base config is missing'),
        ("_base_ = 'mmrotate::a/b.py'", 'needs a package that is not installed'),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, text, sentence):
    path = tmp_path / 'config.py'
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_config(path)


@pytest.mark.parametrize(
    ('run', 'sentence'),
    [
        (dict(launcher='pytorch'), r'RANK is not set; start this with tools/dist_train\.sh'),
        (dict(launcher='slurm'), 'SLURM_PROCID is not set'),
        (dict(amp=True), '--amp needs an accelerator'),
    ],
)
def test_run_options_that_this_machine_cannot_take(run, sentence, monkeypatch):
    monkeypatch.setattr('bnet_mm.engine.config.get_device', lambda: 'cpu')
    with pytest.raises(InputError, match=sentence):
        set_run_options(load_config(STOCK), config_path=STOCK, **run)
