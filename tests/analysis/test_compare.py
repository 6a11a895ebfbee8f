"""Work dirs compared: real ones, of a running training, over seeds, and damaged."""

from __future__ import annotations

import json
from statistics import stdev

import pytest
from PIL import Image
from scipy.stats import ttest_rel

from bnet_mm.analysis.comparison import LOSS, compare, group_runs
from bnet_mm.analysis.runs import read_run
from bnet_mm.errors import InputError


def test_means_deviations_and_a_paired_test_over_seeds(runs):
    groups = group_runs([read_run(run) for run in runs])
    assert [(g.norm, len(g.runs)) for g in groups] == [('BN', 3), ('BNET-3', 3)]
    table = compare(groups, 'configs')
    of = {(g.norm, f.metric, f.when): f for g, figures in table for f in figures}
    final = of['BNET-3', 'accuracy/top1', 'final']
    assert final.values == (63.0, 63.5, 62.0)
    assert final.difference == pytest.approx(62.8333 - 59.1666, abs=1e-3)
    assert final.deviation == pytest.approx(stdev([63.0, 63.5, 62.0]))
    assert final.p == pytest.approx(ttest_rel([63.0, 63.5, 62.0], [58.0, 60.0, 59.5]).pvalue)
    assert final.pairs == 3
    assert of['BN', 'accuracy/top1', 'best'].values == (60.0, 61.0, 59.5)
    assert of['BN', 'accuracy/top1', 'final'].difference is None
    # Table 2: 76.8 and 76.3.
    assert final.paper == pytest.approx(0.5)
    assert of['BNET-3', 'accuracy/top5', 'final'].paper == pytest.approx(0.1)
    # The mean of the last epoch's two; equal in all runs, so that there is nothing to test.
    loss = of['BNET-3', LOSS, 'final']
    assert loss.values == pytest.approx((0.55,) * 3) and loss.p is None and loss.difference == 0


def test_seeds_pair_whatever_the_order_and_only_equal_ones(runs):
    def p(order):
        table = compare(group_runs([read_run(runs[i]) for i in order]), 'configs')
        figure = next(f for f in table[1][1] if f.when == 'final' and f.metric != LOSS)
        return figure.p, figure.pairs

    assert p([0, 1, 2, 3, 4, 5]) == p([2, 0, 1, 5, 3, 4])
    assert p([0, 1, 4, 5])[1] == 1 and p([0, 1, 4, 5])[0] is None
    assert p([0, 1, 3, 4])[1] == 2


def test_what_differs_in_more_than_the_seed_is_no_seed(write_run, tmp_path):
    runs = [write_run(tmp_path / f'run{i}', 'BN', None, [50.0]) for i in range(3)]
    config = runs[2] / 'resnet50_bn_100e_in1k.py'
    config.write_text(f'{config.read_text()}optim_wrapper = dict(optimizer=dict(lr=9))\n')
    names = [(g.name, len(g.runs)) for g in group_runs([read_run(run) for run in runs])]
    known = 'resnet50_bn_100e_in1k'
    assert names == [(f'{known} in run0', 2), (f'{known} in run2', 1)]
    config.write_text(f'{(runs[0] / config.name).read_text()}load_from = "a.pth"\nresume = True\n')
    assert [len(g.runs) for g in group_runs([read_run(run) for run in runs])] == [3]
    config.write_text(config.read_text().replace('True', 'False'))  # starts from others' weights
    assert [len(g.runs) for g in group_runs([read_run(run) for run in runs])] == [2, 1]
    again = [read_run(write_run(tmp_path / name, 'BN', 0, [50.0])) for name in ('a', 'b')]
    with pytest.raises(InputError, match='have the same seed'):
        group_runs(again)


def test_runs_without_a_metric_are_left_out_of_it_alone(runs, write_run, tmp_path):
    log = next(runs[2].glob('*/vis_data/scalars.json'))
    log.write_text(''.join(line for line in log.open() if 'loss' in line))  # not evaluated yet
    table = compare(group_runs([read_run(run) for run in runs]), 'configs')
    of = {(g.norm, f.metric, f.when): f for g, figures in table for f in figures}
    assert of['BN', 'accuracy/top1', 'final'].values == (58.0, 60.0)
    assert of['BNET-3', 'accuracy/top1', 'final'].pairs == 2
    assert len(of['BN', LOSS, 'final'].values) == 3
    other = write_run(tmp_path / 'other', 'GN', 0, [1.0])
    log = next(other.glob('*/vis_data/scalars.json'))
    log.write_text(log.read_text().replace('accuracy/top1', 'error/top1'))
    table = compare(group_runs([read_run(run) for run in (runs[0], other)]), 'configs')
    of = {(g.norm, f.metric, f.when): f for g, figures in table for f in figures}
    assert of['BN', 'error/top1', 'best'].values == of['GN', 'accuracy/top1', 'best'].values == ()
    assert of['GN', 'error/top1', 'best'].difference is None
    assert [f.metric for f in table[0][1]] == [f.metric for f in table[1][1]]


def test_the_tool(runs, run_tool, call_tool, tmp_path):
    result = run_tool('compare.py', *runs, '--plot', 'plots/curves.png', check=True)
    shown = ' '.join(result.stdout.split())
    assert all(part in shown for part in ('+3.67 (p = ', ' +0.5 ', '62.83 ± 0.76')), shown
    with Image.open(tmp_path / 'plots/curves.png') as image:
        assert image.size[0] > 1000
    found = json.loads(call_tool('compare.py', *runs, '--json', check=True).stdout)
    assert [group['norm'] for group in found] == ['BN', 'BNET-3']
    wrong = call_tool('compare.py', tmp_path / 'gone')
    assert wrong.returncode == 2 and 'is not a folder' in wrong.stderr
    assert 'Traceback' not in wrong.stderr
