"""Command line options, as they arrive in the config."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bnet_mm.engine.config import load_config, set_drawing, set_run_options
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import check_library, package_error

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_preprocessor_beside_the_model_is_the_models():
    cfg = load_config(ROOT / 'configs/resnet18_bnet3_100e_in1k.py')
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    changed = load_config(
        ROOT / 'configs/resnet18_bnet3_100e_in1k.py', {'data_preprocessor.to_rgb': False}
    )
    assert changed.model.data_preprocessor.to_rgb is False


def test_iterations_take_the_place_of_epochs():
    options = {'train_cfg.type': 'IterBasedTrainLoop', 'train_cfg.max_iters': 450,
               'train_cfg.val_interval': 150}  # fmt: skip
    cfg = load_config(STOCK, options)
    set_run_options(cfg, config_path=STOCK)
    assert 'max_epochs' not in cfg.train_cfg
    assert cfg.log_processor.by_epoch is False
    assert cfg.default_hooks.logger.log_metric_by_epoch is False
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
        ("_base_ = 'nowhere.py'", r'a base config or a file .* is missing: .*nowhere\.py'),
        ("text = open('gone.txt').read()", r'a base config or a file .* is missing: .*gone\.txt'),
        ("_base_ = 'mmdet::none/x.py'", r'is missing: .*none/x\.py'),
        ("_base_ = 'mmrotate::a/b.py'", 'needs a package that is not installed'),
        ("custom_imports = dict(imports=['mine.none'])", 'a package that is not installed: .*mine'),
        ('lr = 1 / 0', 'cannot be loaded: ZeroDivisionError: division by zero'),
        ('lr = rate', "cannot be loaded: NameError: name 'rate' is not defined"),
        (f'_base_ = [{str(ROOT / STOCK)!r}] * 2', 'cannot be loaded: KeyError: .*Duplicate key'),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, text, sentence):
    path = tmp_path / 'config.py'
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_config(path)


@pytest.mark.parametrize(
    ('name', 'text', 'sentence'),
    [
        ('config.json', '{', r'config\.json cannot be loaded: JSONDecodeError'),
        ('config.yaml', 'a: [', r'config\.yaml cannot be loaded: ParserError'),
        ('config.txt', '', r'config\.txt cannot be read: Only py/yml/yaml/json'),
        ('config.py', '\xff', r'config\.py is not valid Python'),
    ],
)
def test_configs_of_other_kinds(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text, encoding='latin-1')
    with pytest.raises(InputError, match=sentence):
        load_config(tmp_path / name)


def test_a_library_that_is_missing_is_told_from_a_name_it_does_not_have(monkeypatch):
    error = ImportError('cannot import name', name='mmdet.models')
    assert 'which is not installed' not in package_error(error)
    monkeypatch.setitem(sys.modules, 'mmdet', None)  # as if it were not installed
    assert 'it builds on mmdet, which is not installed: run `make env`' in package_error(error)
    gap = ModuleNotFoundError("No module named 'pkg_resources'", name='pkg_resources')
    assert "need pkg_resources: pip install 'setuptools<81'" in package_error(gap)
    for module, package in (('mmdet', 'mmdet'), ('mmcv', 'mmcv')):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(InputError, match=f'needs {package}, .*bnet_mm.det'):
                check_library('mmdet')


def test_a_library_that_refuses_the_mmcv_it_finds():
    if not hasattr(import_module('mmdet'), 'mmcv_maximum_version'):
        pytest.skip('this mmdet takes any mmcv')
    code = (
        'import mmcv\n'
        "mmcv.__version__ = '2.9.0'\n"
        'from bnet_mm.engine.inputs import check_library\n'
        "check_library('mmdet')\n"
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'InputError: mmdet cannot be imported: MMCV==2.9.0 is used' in result.stderr


def test_drawing_where_it_cannot_be(monkeypatch):
    options = dict(show=False, show_dir='shown', wait_time=1)
    cfg = load_config(STOCK)
    set_drawing(cfg, **options)
    assert cfg.default_hooks.visualization.draw is True
    assert cfg.default_hooks.visualization.interval == 1
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    with pytest.raises(InputError, match='there is no display here; use --show-dir'):
        set_drawing(cfg, **({**options, **dict(show=True)}))
    cfg.default_hooks.visualization = None
    with pytest.raises(InputError, match=r'need default_hooks\.visualization'):
        set_drawing(cfg, **options)


@pytest.mark.parametrize(
    ('run', 'sentence'),
    [
        (dict(launcher='pytorch'), r'RANK is not set; start this with tools/dist_train\.sh'),
        (dict(launcher='slurm'), 'SLURM_PROCID is not set'),
        (dict(launcher='mpi'), 'OMPI_COMM_WORLD_LOCAL_RANK is not set; start this with mpirun'),
        (dict(amp=True), '--amp needs an accelerator'),
    ],
)
def test_run_options_that_this_machine_cannot_take(run, sentence, monkeypatch):
    monkeypatch.setattr('bnet_mm.engine.config.get_device', lambda: 'cpu')
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=sentence):
        set_run_options(load_config(STOCK), config_path=STOCK, **run)


@pytest.mark.parametrize(
    ('entries', 'run', 'sentence'),
    [
        (dict(optim_wrapper=None), dict(amp=True), '--amp needs an optim_wrapper'),
        (
            dict(optim_wrapper=dict(type='ApexOptimWrapper')),
            dict(amp=True),
            '--amp takes an OptimWrapper; this config has optim_wrapper ApexOptimWrapper',
        ),
        (
            dict(auto_scale_lr=None),
            dict(auto_scale_lr=True),
            r'--auto-scale-lr needs auto_scale_lr\.base_batch_size',
        ),
    ],
)
def test_run_options_that_a_config_cannot_take(entries, run, sentence):
    cfg = load_config(STOCK)
    for name, value in entries.items():
        cfg[name] = value
    with pytest.raises(InputError, match=sentence):
        set_run_options(cfg, config_path=STOCK, **run)
