"""Work dirs: resumed, restarted and running trainings, of epochs and of iterations, and damaged."""

from __future__ import annotations

import json

import pytest

from bnet_mm.analysis.runs import read_run
from bnet_mm.errors import InputError


def test_a_resumed_and_a_running_training(write_run, tmp_path):
    folder = write_run(tmp_path / 'run', 'BN', 0, [50.0, 99.0, 99.0])
    write_run(folder, 'BN', 0, [60.0, 70.0], first=2, time='2')
    log = folder / '2026_2/vis_data/scalars.json'
    log.write_text(log.read_text() + '{"loss": 1.0, "epo')  # just being written
    run = read_run(folder)
    assert run.series('accuracy/top1') == {1: 50.0, 2: 60.0, 3: 70.0}
    assert sorted(run.loss()) == [1, 2, 3]
    # Two iterations of 1.8 seconds an epoch; what the resumed training did again counts once.
    assert run.hours() == pytest.approx({1: 0.001, 2: 0.002, 3: 0.003})


def test_a_training_that_began_anew_has_only_its_own(write_run, tmp_path):
    folder = write_run(tmp_path / 'run', 'BN', 0, [50.0, 99.0])
    log = folder / '2026_2/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({'loss': 3.0, 'epoch': 1, 'step': 1, 'time': 1.8}) + '\n')
    run = read_run(folder)
    assert run.metrics() == [] and run.loss() == {1: 3.0} and run.hours() == {1: 0.0005}
    # Of iterations, where the first one counted epochs.
    log.write_text(json.dumps({'loss': 3.0, 'step': 50}) + '\n')
    run = read_run(folder)
    assert run.loss() == {50: 3.0} and run.epochs == {} and run.hours() == {}


def test_evaluations_between_iterations_whatever_the_logger_calls_their_step(write_run, tmp_path):
    folder = write_run(tmp_path / 'run', 'BN', 0, [])
    [log] = folder.glob('*/vis_data/scalars.json')
    for step_of in (lambda step: step, lambda step: 0):
        records = []
        for step in (50, 100):
            records.append({'loss': 1.0, 'step': step})
            records.append({'mIoU': float(step), 'step': step_of(step)})
        log.write_text('\n'.join(map(json.dumps, records)))
        assert read_run(folder).series('mIoU') == {50: 50.0, 100: 100.0}


def test_what_no_object_is_of_is_no_figure(write_run, tmp_path):
    folder = write_run(tmp_path / 'run', 'BN', 0, [50.0])
    [log] = folder.glob('*/vis_data/scalars.json')
    figures = {'coco/bbox_mAP': 0.4, 'coco/bbox_mAP_l': -1.0, 'step': 1}
    log.write_text(f'{log.read_text()}\n{json.dumps(figures)}\n')
    assert read_run(folder).metrics() == ['accuracy/top1', 'accuracy/top5', 'coco/bbox_mAP']


def test_no_program_in_the_folder_is_run_as_its_config(write_run, tmp_path):
    folder = write_run(tmp_path / 'run', 'BN', 0, [50.0])
    (folder / 'plot.py').write_text("import sys\nsys.exit('run')\n")
    (folder / 'constants.py').write_text('radius = 2\n')
    assert read_run(folder).name == 'resnet50_bn_100e_in1k'
    for file in folder.glob('*.py'):
        file.unlink()
    with pytest.raises(InputError, match='cannot be read as a config'):
        read_run(folder)
    [log] = folder.glob('*/vis_data/scalars.json')
    log.with_name('config.py').write_text("model = dict(backbone=dict(type='ResNet', depth=50))\n")
    run = read_run(folder)
    assert (run.name, run.norm, run.config) == ('run', 'BN', log.with_name('config.py'))


def test_what_cannot_be_read_is_named(runs, tmp_path):
    with pytest.raises(InputError, match='is not a folder'):
        read_run(tmp_path / 'gone')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='holds no training'):
        read_run(tmp_path / 'empty')
    log = next(runs[0].glob('*/vis_data/scalars.json'))
    log.write_text('{"loss": 1\n' + log.read_text())
    with pytest.raises(InputError, match=r'scalars\.json, line 1 is damaged'):
        read_run(runs[0])
    log.write_text('{"loss": "nan", "step": 1}\n{}')
    with pytest.raises(InputError, match='its loss is not a number'):
        read_run(runs[0])
    log.write_text('')
    with pytest.raises(InputError, match='has no loss'):
        read_run(runs[0])
