"""Measuring: the peers do the same, the figures are what they say; and the command line."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from bnet_mm import BNET, GNET, INET, SNET, enhance
from bnet_mm.benchmark.interleaved import interleave, ratio
from bnet_mm.benchmark.layers import layer_costs, saved_bytes
from bnet_mm.benchmark.peers import BN, OURS, TWO_LINES, layer, model_with
from bnet_mm.kernels import use
from bnet_mm.layers import EnhancedNorm
from bnet_mm.reports.benchmark import grid_table

ROOT = Path(__file__).parents[2]
# A process in which nothing but torch is installed.
TORCH_ALONE = """
import runpy, sys
from importlib.machinery import PathFinder

class WithoutThem(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = {'mmengine', 'mmcv', 'rich', 'numpy', 'matplotlib', 'torchvision', 'yaml'}
        return None if name.partition('.')[0] in absent else super().find_spec(name, path, target)

sys.meta_path[:] = [WithoutThem if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, 'tools/benchmark.py', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_every_job_runs_once_a_round_and_ratios_are_of_the_same_round():
    order = []
    jobs = {name: lambda name=name: order.append(name) for name in 'abc'}
    times = interleave(jobs, rounds=4)
    assert [len(times[name]) for name in 'abc'] == [4, 4, 4]
    rounds = [order[i : i + 3] for i in range(0, 15, 3)]
    assert all(sorted(of_round) == ['a', 'b', 'c'] for of_round in rounds)
    assert rounds != [rounds[0]] * 5  # what runs before a job is not always the same
    assert ratio([2.0, 6.0, 40.0], [1.0, 2.0, 10.0]).median == 3
    assert ratio([2.0], [1.0]).high == 2


def test_a_gpu_is_timed_by_its_events(monkeypatch):
    happened = []

    class Event:
        def __init__(self, enable_timing):
            self.at = None

        def record(self):
            self.at = len(happened)
            happened.append('event')

        def synchronize(self):
            happened.append('wait')

        def elapsed_time(self, end):
            return 1000.0 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, 'Event', Event)
    monkeypatch.setattr(torch.cuda, 'device', lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, '_sleep', lambda _: happened.append('sleep'))
    times = interleave({'job': lambda: happened.append('job')}, rounds=2, device='cuda:0')
    assert happened == ['sleep', 'event', 'job', 'event', 'wait'] * 3
    assert times == {'job': [2.0, 2.0]}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')
def test_layers_on_a_gpu():
    modes = ('training', 'evaluation')
    with use('triton'):
        rows = list(
            layer_costs(((2, 64, 50, 60),), (5,), ('channels_last',), 3, 'cuda', modes=modes)
        )
    assert all(row.bn > 0 and row.bnet.median > 0 and row.limit > 0 for row in rows)


@pytest.mark.parametrize('training', [True, False])
def test_models_with_every_peer_compute_the_same(training):
    torch.manual_seed(0)
    start = enhance(resnet18(), k=3).train(training)
    with torch.no_grad():
        for module in start.modules():
            if isinstance(module, EnhancedNorm):
                module.norm.running_mean.normal_()
    x = torch.randn(2, 3, 64, 64)
    models = {peer: model_with(peer, start) for peer in (BN, TWO_LINES, OURS)}
    assert not any(isinstance(m, EnhancedNorm) for m in models[BN].modules())
    for model in models.values():
        torch.testing.assert_close(model(x), models[OURS](x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    'norm',
    [
        BNET(8, k=3, dilation=2, eps=1e-2),
        GNET(8, k=5, num_groups=4, eps=1e-2),
        SNET(8, k=3),
        INET(8, k=3, eps=1e-2),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_peers_have_the_norm_the_groups_and_the_dilation_of_what_they_replace(norm):
    x = torch.randn(4, 8, 9, 9)
    for training in (True, False):
        start = nn.Sequential(copy.deepcopy(norm)).train(training)
        plain, two_lines = (model_with(peer, start) for peer in (BN, TWO_LINES))
        assert type(plain[0]).__module__.partition('.')[0] == 'torch' or isinstance(norm, SNET)
        expected = start(x)
        torch.testing.assert_close(plain(x), expected)
        torch.testing.assert_close(two_lines(x), expected)
        nn.init.uniform_(start[0].dw.weight)
        torch.testing.assert_close(model_with(TWO_LINES, start)(x), start(x))


def test_bytes_kept():
    x = torch.randn(2, 8, 6, 6)
    assert saved_bytes(nn.ReLU(), x) == x.nbytes
    assert saved_bytes(layer(OURS, 8, 5), x) == x.nbytes + 2 * 8 * 4
    assert saved_bytes(layer(TWO_LINES, 8, 5), x) > 2 * x.nbytes


def test_a_row_for_each_map_size_and_format():
    rows = list(layer_costs(((1, 4, 6, 5),), (1, 3), ('contiguous', 'channels_last'), rounds=2))
    assert {(row.mode, row.dtype, row.two_lines_compiled) for row in rows} == {
        ('training', 'float32', None)
    }
    assert [(row.k, row.memory_format) for row in rows] == [
        *((k, 'contiguous') for k in (1, 3)),
        *((k, 'channels_last') for k in (1, 3)),
    ]
    for row in rows:
        assert row.bnet.low <= row.bnet.median <= row.bnet.high
        assert row.bn > 0
        assert row.saved <= 1 < row.saved_two_lines


def test_evaluation_keeps_nothing():
    modes = ('training', 'frozen', 'evaluation')
    dtypes = (torch.float32, torch.bfloat16)
    rows = list(
        layer_costs(((1, 4, 6, 5),), (3,), ('contiguous',), rounds=2, dtypes=dtypes, modes=modes)
    )
    assert [(row.mode, row.dtype) for row in rows] == [
        (mode, dtype) for mode in modes for dtype in ('float32', 'bfloat16')
    ]
    assert all((row.saved is None) == (row.mode == 'evaluation') for row in rows)


def test_the_worst_map_of_a_grid_comes_first():
    (row,) = layer_costs(((1, 4, 6, 5),), (3,), ('contiguous',), rounds=1)

    def measured(shape, k, ours, theirs, compiled=None):
        bnet, two_lines = (ratio([time], [1.0]) for time in (ours, theirs))
        of_compiled = compiled and ratio([compiled], [1.0])
        return replace(
            row, shape=shape, k=k, bnet=bnet, two_lines=two_lines, two_lines_compiled=of_compiled
        )

    table = grid_table(
        [
            *(measured((1, 4, 8, 8), 3, 1.0, 2.0), measured((1, 4, 8, 8), 5, 1.0, 4.0)),
            *(measured((1, 4, 2, 2), 3, 1.0, 2.0, 0.8), measured((1, 4, 2, 2), 5, 1.0, 4.0)),
        ]
    )
    assert table.columns == ['map', 'training float32 contiguous']
    assert table.rows == [['1x4x2x2', '1.25 0.25'], ['1x4x8x8', '0.50 0.25']]


def test_what_cannot_be_compiled_is_left_out(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError('no compiler\nand more')

    monkeypatch.setattr(torch, 'compile', lambda *_, **__: refuse)
    with pytest.warns(UserWarning, match=r'not measured compiled: RuntimeError: no compiler$'):
        (row,) = layer_costs(((1, 4, 6, 5),), (3,), ('contiguous',), rounds=1, compiled=True)
    assert row.two_lines_compiled is None
    monkeypatch.setattr(torch, 'compile', lambda module, **_: module)
    (row,) = layer_costs(((1, 4, 6, 5),), (3,), ('contiguous',), rounds=1, compiled=True)
    assert row.two_lines_compiled.median > 0


def test_layers_need_torch_alone():
    command = [sys.executable, '-c', TORCH_ALONE, 'tools/benchmark.py']
    layers = ['--map', '1', '4', '8', '8', '--k', '3', '--rounds', '2']
    result = subprocess.run([*command, *layers], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert '| training | float32 | channels_last | 1x4x8x8 | 3 |' in result.stdout
    assert 'training is left out: torchvision is not installed' in result.stderr
    only = [*layers, '--only', 'layers', '--markdown']
    result = subprocess.run([*command, *only], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'training is' not in result.stderr


def test_command_line(tmp_path):
    figure = tmp_path / 'cost.png'
    result = run(
        *('--map', '1', '4', '6', '5', '--k', '3', '--model', 'resnet18', '--batch', '2'),
        *('--shape', '32', '32', '--rounds', '1', '--json', '--plot', str(figure)),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found['machine']['torch'] == torch.__version__
    assert len(found['layers']) == 2
    assert found['layers'][0]['bnet'].keys() == {'median', 'low', 'high'}
    assert {row['peer'] for row in found['models']} == {BN, TWO_LINES, OURS}
    assert figure.read_bytes().startswith(b'\x89PNG')


def test_figures_and_table_of_one_run_are_written(tmp_path):
    stem = tmp_path / 'found'
    layers = ['--map', '1', '4', '6', '5', '--k', '3', '--rounds', '1', '--only', 'layers']
    result = run(*layers, '--modes', 'frozen', '--output', str(stem))
    assert result.returncode == 0, result.stderr
    assert json.loads(stem.with_suffix('.json').read_text())['layers'][0]['mode'] == 'frozen'
    assert '| frozen | float32 | contiguous | 1x4x6x5 |' in stem.with_suffix('.md').read_text()


@pytest.mark.skipif(sys.platform == 'win32', reason='a shell script')
def test_what_a_gpu_runs_goes_through_without_one(tmp_path):
    environment = {**os.environ, 'PYTHON': sys.executable, 'RESULTS': str(tmp_path)}
    command = ['bash', 'benchmarks/gpu.sh', '--dry-run']
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (checked,) = tmp_path.glob('*_dry_run_checks.json')
    assert json.loads(checked.read_text())['backends']
    (found,) = tmp_path.glob('*_dry_run.json')
    assert {row['mode'] for row in json.loads(found.read_text())['layers']} == {
        *('training', 'evaluation')
    }
    assert found.with_suffix('.md').read_text().count('| 2x8x6x5 |') == 4


def test_inference_before_and_after_deployment():
    result = run(
        *(
            '--only',
            'inference',
            '--config',
            'configs/pspnet_r50_bnet3_d8_512x1024_40k_cityscapes.py',
        ),
        *('--shape', '64', '64', '--k', '3', '--rounds', '1', '--formats', 'channels_last'),
        '--markdown',
    )
    assert result.returncode == 0, result.stderr
    for peer in ('BN', 'BN deployed', 'BNET', 'BNET deployed', 'two lines'):
        assert f'| 3 | {peer} |' in result.stdout


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_deployed_in_runtimes(runtime):
    for package in ('onnxscript', runtime, *(['nncf'] if runtime == 'openvino' else [])):
        pytest.importorskip(package)
    result = run(
        *('--only', 'runtimes', '--model', 'resnet18', '--runtimes', runtime, '--int8'),
        *('--shape', '64', '64', '--k', '3', '--batch', '1', '--rounds', '2', '--json'),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)['models']
    own_file = [f'{runtime}, own file'] if runtime == 'openvino' else []
    tasks = ('torch', runtime, *own_file, f'{runtime}, 8 bits')
    assert [(row['task'], row['peer']) for row in found] == [
        (task, peer) for task in tasks for peer in (BN, OURS)
    ]
    assert all(row['seconds'] > 0 and row['over_bn_deployed'] is None for row in found)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--model', 'resnet51', '--only', 'training'], "torchvision has no model 'resnet51'"),
        (['--only', 'inference'], 'inference and --config go together'),
        (['--only', 'training', '--plot', 'x.png'], '--plot draws layers'),
        (['--k', '4', '--only', 'layers'], 'k must be a positive odd integer'),
        (['--only', 'training', '--grid'], '--grid is of layers'),
        (['--only', 'layers', '--output', 'README.md/x'], 'cannot be written'),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, sentence):
    result = run(*arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert 'Traceback' not in result.stderr
