"""What the tools write into a config: once, in sight, with switches; stock tools do the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from bnet_mm.checkpoint import read_checkpoint
from bnet_mm.engine import processes
from bnet_mm.engine.additions import DOWNLOADS, HOOKED, MODULE, add_to_config

ROOT = Path(__file__).resolve().parent.parent.parent
STOCK = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile(sys.argv[1])
cfg.work_dir = sys.argv[2]
if len(sys.argv) > 3:
    cfg.load_from, cfg.resume = sys.argv[3], True
Runner.from_cfg(cfg).train()
"""


def config(**options) -> Config:
    checkpoint = dict(type='CheckpointHook', interval=1)
    return Config(dict(default_hooks=dict(checkpoint=checkpoint), **options))


def kinds(cfg: Config) -> list:
    return [hook['type'] for hook in (*cfg.custom_hooks, cfg.default_hooks.checkpoint)]


def test_all_are_written_once():
    cfg = config(custom_hooks=[dict(type='EMAHook')], custom_imports=dict(imports=['os']))
    add_to_config(cfg)
    once = cfg.to_dict()
    assert {hook.__name__ for hook in HOOKED.values()} < set(kinds(cfg))
    assert 'EMAHook' in kinds(cfg) and cfg.custom_imports.imports == ['os', MODULE, DOWNLOADS]
    add_to_config(cfg)
    assert cfg.to_dict() == once


@pytest.mark.parametrize('switch', HOOKED)
def test_each_has_a_switch(switch):
    for cfg in (config(bnet_mm={switch: False}), config()):
        add_to_config(cfg)  # the second has them already, and they are switched off afterwards
        cfg.bnet_mm[switch] = False
        add_to_config(cfg)
        assert HOOKED[switch].__name__ not in kinds(cfg)
        assert len(kinds(cfg)) == (4 if switch == 'whole_files' else 3)
    assert cfg.default_hooks.checkpoint.interval == 1


def test_switches_of_downloads_and_processes(monkeypatch):
    cfg = config(bnet_mm=dict(safe_downloads=False, cpu_sync_bn=False), launcher='pytorch')
    add_to_config(cfg)
    assert cfg.custom_imports.imports == [MODULE]
    monkeypatch.setattr(processes.dist, 'init_process_group', lambda _: None)
    monkeypatch.setattr(processes.dist, 'destroy_process_group', lambda: None)
    for switch in (False, True):
        cfg = config(bnet_mm=dict(cpu_sync_bn=switch), launcher='pytorch')
        with processes.cpu_processes(cfg):
            assert ('CPU' in cfg.model_wrapper_cfg.get('type', '')) == switch


def test_what_a_user_has_chosen_stays():
    chosen = dict(type='CheckpointHook', backend_args=dict(backend='petrel'))
    cfg = Config(dict(default_hooks=dict(checkpoint=chosen)))
    add_to_config(cfg)
    assert cfg.default_hooks.checkpoint.to_dict() == chosen


def run_stock(config: Path, *arguments: Path | str) -> None:
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', STOCK, str(config), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.slow
def test_a_stock_tool_goes_on_from_our_run_and_ends_bit_for_bit_equal(
    tiny_config, tmp_path, run_tool
):
    options = ['train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
    run_tool('train.py', tiny_config, '--seed', 3, '--work-dir', tmp_path / 'ours',
             '--cfg-options', *options, check=True)  # fmt: skip
    (dumped,) = (tmp_path / 'ours').glob('*.py')
    run_stock(dumped, tmp_path / 'stock', tmp_path / 'ours/epoch_1.pth')
    ours, stock = (
        read_checkpoint(tmp_path / name / 'epoch_2.pth')['state_dict'] for name in ('ours', 'stock')
    )
    assert ours.keys() == stock.keys()
    assert not [name for name in ours if not torch.equal(ours[name], stock[name])]


@pytest.mark.slow
def test_one_line_in_a_stock_config_trains_and_saves_what_anybody_reads(tiny_config, tmp_path):
    cfg = Config.fromfile(tiny_config)
    for name in ('bnet_mm', 'custom_hooks'):
        cfg.pop(name, None)
    cfg.custom_imports = dict(imports=['bnet_mm'])
    cfg.train_cfg.max_epochs, cfg.train_dataloader.num_workers = 1, 0
    cfg.train_dataloader.persistent_workers = False
    cfg.dump(tmp_path / 'stock.py')
    run_stock(tmp_path / 'stock.py', tmp_path / 'run')
    code = """
import sys, torch
from mmengine.runner.checkpoint import load_state_dict
state = torch.load(sys.argv[1], weights_only=False)['state_dict']
net = torch.nn.Module()
load_state_dict(net, state)
print(len(state), any(name.startswith('bnet_mm') for name in sys.modules))
"""
    read = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path / 'run/epoch_1.pth')],
        capture_output=True,
        text=True,
    )
    assert read.stdout.strip().endswith('False'), read.stderr
