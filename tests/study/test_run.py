from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from small_study import PLAN, STUDY, draw_photos

from bnet_study.classification import train_classifier
from bnet_study.images import read_images
from bnet_study.plan import read_plan
from bnet_study.scheduling import folder_of, missing_runs


def lines(tmp_path) -> list[dict]:
    file = tmp_path / 'out' / 'runs.jsonl'
    return [json.loads(text) for text in file.read_text().splitlines()]


def test_runs_what_is_missing_in_order_and_once(study, plan_file, tmp_path):
    plan = plan_file()
    first = study(plan, '--jobs', 1)
    assert '4 of 4 runs are missing' in first.stdout
    found = lines(tmp_path)
    assert [(f['seed'], f['arm']) for f in found] == [
        (0, 'bn'), (0, 'bnet3'), (1, 'bn'), (1, 'bnet3')
    ]  # fmt: skip
    for entry in found:
        assert entry['data'] == 'photos' and entry['start'] == 'scratch' and entry['seconds'] > 0
        assert entry['machine']['cpu'] and torch.__version__.startswith(entry['versions']['torch'])
        assert len(entry['curve']['top1']) == 2 and entry['images'] == [40, 20]
        assert entry['test']['top1'] == entry['curve']['top1'][-1]
    assert found[1]['kernels'] and not found[0]['kernels']
    assert '0 of 4 runs are missing' in study(plan).stdout and len(lines(tmp_path)) == 4
    listed = study(plan, '--list').stdout.splitlines()
    assert len(listed) == 4 and all(text.startswith('done') for text in listed)
    # Another would have been run, and a repetition comes out alike.
    study(plan, '--only', 'bnet3 1', '--again', '--jobs', 1)  # as many threads, the same bits
    again = lines(tmp_path)[-1]
    assert again['test'] == found[3]['test'] and again['weights'] == found[3]['weights']
    assert (tmp_path / 'out' / 'logs' / 'colours.tiny.scratch.bnet3.1.txt').is_file()


def test_other_data_in_the_place_of_the_plans(study, plan_file, tmp_path):
    draw_photos(tmp_path / 'mine', 10)
    study(plan_file(), '--only', 'bn 0', '--data', f'photos={tmp_path / "mine"}')
    (found,) = lines(tmp_path)
    assert found['images'] == [16, 4] and found['config']['data'] == str(tmp_path / 'mine')


def test_a_run_comes_after_the_one_that_it_starts_from(study, plan_file, tmp_path):
    runs = [dict(task='later', net='neck', start='colours:bn', arm=['bnet3', 'fast', 'dw3'])]
    plan = plan_file(runs=runs)
    # dw3's convolutions are in no weights of bn.
    failed = study(plan, ok=False)
    assert 'FAILED later.neck.colours-bn.dw3.0' in failed.stdout
    assert 'is not of this network: it lacks' in failed.stdout
    found = lines(tmp_path)
    assert (found[0]['task'], found[0]['arm']) == ('colours', 'bn')
    assert {(f['task'], f['arm'], f['start']) for f in found[1:]} == {
        ('later', 'bnet3', 'colours:bn'), ('later', 'fast', 'colours:bn')
    }  # fmt: skip


def test_a_stopped_run_ends_as_one_that_was_not(plan_file, photos, tmp_path):
    run = read_plan(plan_file()).runs[1]
    images = read_images(photos / 'photos', 16, tmp_path / 'cache')
    device = torch.device('cpu')

    class StopError(Exception):
        pass

    def stop(*_, **__):
        raise StopError

    folders = [tmp_path / name for name in ('whole', 'stopped')]
    for folder in folders:
        folder.mkdir()
    whole = train_classifier(run, images, None, folders[0], device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('bnet_study.classification.MOMENTUM', 0.9)
        real = torch.optim.SGD.step
        steps = iter(range(100))
        patch.setattr(
            torch.optim.SGD, 'step', lambda *a, **k: stop() if next(steps) == 6 else real(*a, **k)
        )
        with pytest.raises(StopError):  # in the second epoch
            train_classifier(run, images, None, folders[1], device)
    assert (folders[1] / 'state.pth').is_file() and not (folders[1] / 'weights.pth').exists()
    stopped = train_classifier(run, images, None, folders[1], device)
    assert stopped['test'] == whole['test'] and stopped['weights'] == whole['weights']
    assert stopped['curve']['loss'] == whole['curve']['loss']
    assert [f.name for f in folders[1].iterdir()] == ['weights.pth']


@pytest.mark.parametrize('how', ['deadline', 'signal'])
def test_all_processes_end_when_it_ends(how, study, plan_file, photos, tmp_path):
    tasks = {'colours': {**PLAN['tasks']['colours'], 'epochs': 100000}}
    plan = plan_file(tasks=tasks)
    if how == 'deadline':
        assert 'The time is over' in study(plan, '--minutes', 0.2, ok=False).stdout
    else:
        options = [
            '--data-root',
            photos,
            '--out',
            tmp_path / 'out',
            '--work-dir',
            tmp_path / 'work',
        ]
        process = subprocess.Popen(
            [sys.executable, STUDY / 'run.py', plan, *options, '--device', 'cpu'],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        work = tmp_path / 'work'
        limit = time.time() + 60
        while time.time() < limit and not any(
            'epoch' in file.read_text() for file in work.glob('*/output.txt')
        ):
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert process.returncode and 'goes on from the last whole epochs' in output
    running = subprocess.run(['pgrep', '-f', str(tmp_path)], capture_output=True, text=True)
    assert not running.stdout
    assert not (tmp_path / 'out' / 'runs.jsonl').exists()


def test_times_steps_of_each_arm(study, plan_file, tmp_path):
    study(plan_file(), '--times', 2)
    found = json.loads((tmp_path / 'out' / 'times.json').read_text())
    arms = [step['arm'] for step in found['steps']]
    assert arms[:2] == ['bn', 'bnet3'] and 'bn x 1.25' in arms
    assert found['steps'][0]['ratio'] == 1 and all(step['seconds'] > 0 for step in found['steps'])
    assert found['machine']['rounds'] == 2


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (('--only', 'resnet50'), 'no run of'),
        (('--data-root', '/nowhere'), 'is not there; name the folder'),
    ],
)
def test_wrong_input_is_one_sentence(study, plan_file, options, said):
    result = study(plan_file(), *options, ok=False)
    assert result.returncode == 2 and said in result.stderr and 'Traceback' not in result.stderr


def test_no_gpu(study, plan_file, photos, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    command = [sys.executable, STUDY / 'run.py', plan_file(), '--device', 'cuda']
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and 'torch finds no GPU here' in result.stderr


def test_a_source_without_weights_is_run_again(plan_file, tmp_path):
    runs = [dict(task='later', net='tiny', start='colours:bn', arm='bnet3')]
    plan = read_plan(plan_file(runs=[dict(task='colours', net='tiny', arm='bn'), *runs]))
    done = {(plan.runs[0].config_hash, 0)}
    assert missing_runs(plan, plan.runs, done, tmp_path) == list(plan.runs)
    folder = folder_of(tmp_path, plan.runs[0])
    folder.mkdir()
    (folder / 'weights.pth').touch()
    assert missing_runs(plan, plan.runs, done, tmp_path) == [plan.runs[1]]
