"""BNETVisHook: what it logs, that it changes nothing, and that it keeps to its time."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from bnet_mm.text import without_suffix

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def config(path: Path, base: Path, hook: str) -> Path:
    path.write_text(
        f"""
_base_ = {str(base)!r}
custom_hooks = [{hook}]
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=1)
"""
    )
    return path


def scalars_of(work_dir: Path) -> list[dict]:
    [file] = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_it_logs_to_every_backend_and_the_training_stays_the_same(tiny_config, run_tool, tmp_path):
    hook = "dict(type='BNETVisHook', interval=2, time_share=1.0)"
    for name, hooks in (('with', hook), ('without', '')):
        path = config(tmp_path / f'{name}.py', tiny_config, hooks)
        options = ('--cfg-options', 'train_cfg.max_epochs=1', '--work-dir', name)
        run_tool('train.py', path, *options, '--no-validate', check=True)
    logged = [r for r in scalars_of(tmp_path / 'with') if any('kernels/' in key for key in r)]
    assert [record['step'] for record in logged] == [2]  # 12 images, 4 a batch
    names = {key for key in logged[0] if key.startswith('kernels/')}
    assert len(names) == 16 and 'kernels/backbone.layer4.1.bn2/outside' in names
    images = list((tmp_path / 'with').glob('*/vis_data/vis_image/heatmap_*_2.png'))
    assert len(images) == 3
    [events] = (tmp_path / 'with').glob('*/vis_data/events.out.tfevents.*')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(events)).Reload().Tags()
    assert names <= set(found['scalars'])
    assert sorted(found['images']) == sorted(without_suffix(p.name, '_2.png') for p in images)
    ours, plain = (
        torch.load(tmp_path / f'{name}/epoch_1.pth', weights_only=False)['state_dict']
        for name in ('with', 'without')
    )
    assert all(torch.equal(ours[key], plain[key]) for key in plain)
    # What it logged is no metric of the training.
    from bnet_mm.analysis.runs import read_run

    assert read_run(tmp_path / 'with').metrics() == []


class Clock:
    """Time that passes only when the test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize('maps', [0.001, 0.05, 0.9])
def test_it_never_takes_more_than_its_share(maps, monkeypatch, caplog):
    from bnet_mm.reports import vis_hook

    clock, logged = Clock(), Counter()
    monkeypatch.setattr(vis_hook, 'time', clock)

    class Visualizer:
        def add_scalars(self, scalars, step):
            clock.now += 0.002
            logged['scalars'] += 1

        def add_image(self, name, image, step):
            clock.now += maps
            logged['image'] += 1

    class Runner:
        iter = 1
        logger = logging.getLogger('training')
        visualizer = Visualizer()

    hook = vis_hook.BNETVisHook()
    hook._budget, hook._model = vis_hook.Budget(0.01), torch.nn.Module()
    hook._images = [('a', None)]
    hook._statistics, hook._strip = lambda model: {}, lambda model, name, image: None
    for what, cost in (('statistics', 0.002), ('maps', maps)):
        with hook._budget.spent_on(what):
            clock.now += cost
    for epoch in range(1, 21):
        clock.now = max(10.0 * epoch, clock.now)
        hook._log_in_time(Runner(), epoch)
        spent = 0.002 * (1 + logged['scalars']) + maps * (1 + logged['image'])
        assert spent <= 0.01 * clock.now or not logged
    assert logged['scalars'] >= 10 and (logged['image'] == 20) == (maps == 0.001)
    with caplog.at_level('INFO'):
        hook.after_train(Runner())
    [message] = caplog.messages
    assert f'statistics {logged["scalars"]} times, maps {logged["image"]} times' in message
    assert f'in {100 * spent / clock.now:.2f} % of the time' in message


def test_a_failure_ends_the_hook_and_not_the_training(tiny_config, run_tool, tmp_path):
    path = config(tmp_path / 'failing.py', tiny_config, "dict(type='Failing', interval=1)")
    (tmp_path / 'failing_hook.py').write_text(
        """
from mmengine.registry import HOOKS
from bnet_mm.reports.vis_hook import BNETVisHook

@HOOKS.register_module()
class Failing(BNETVisHook):
    def _statistics(self, model):
        self.turns = getattr(self, 'turns', 0) + 1
        if self.turns > 1:
            raise RuntimeError('no space left on device')
        return {}
"""
    )
    text = path.read_text() + "custom_imports = dict(imports=['bnet_mm', 'failing_hook'])\n"
    path.write_text(text.replace("'Failing', interval=1", "'Failing', interval=1, time_share=1.0"))
    options = ('--cfg-options', 'train_cfg.max_epochs=1', '--work-dir', 'w', '--no-validate')
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    result = run_tool('train.py', path, *options, check=True, env=environment)
    said = result.stdout + result.stderr
    assert said.count('BNETVisHook failed, and the training goes on') == 1
    assert 'no space left on device' in said and (tmp_path / 'w/epoch_1.pth').is_file()


def test_a_missing_layer_and_a_missing_image_are_named(tiny_config, refused, tmp_path):
    for entries, sentence in (
        ("dict(type='BNETVisHook', images=['gone.jpg'])", 'there is no image gone.jpg'),
        ("dict(type='BNETVisHook', layers=['layer9'])", 'no BNET is called layer9'),
    ):
        assert sentence in refused(config(tmp_path / 'wrong.py', tiny_config, entries))


def test_the_package_registers_it_without_importing_a_library():
    code = (
        'import sys, bnet_mm; from mmengine.registry import HOOKS; '
        "assert HOOKS.get('BNETVisHook').__name__ == 'BNETVisHook'; "
        "assert not {'mmdet', 'mmseg', 'mmaction', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
