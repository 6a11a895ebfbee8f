"""Work dirs compared: real ones, of a running training, over seeds, and damaged."""

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


def test_what_cannot_be_compared_is_named(runs, tmp_path):
    with pytest.raises(InputError, match='is no folder'):
        read_run(tmp_path / 'gone')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='holds no training'):
        read_run(tmp_path / 'empty')
    with pytest.raises(InputError, match='have the same seed'):
        group_runs([read_run(runs[0]), read_run(runs[0])])
    log = next(runs[0].glob('*/vis_data/scalars.json'))
    log.write_text('{"loss": 1\n' + log.read_text())
    with pytest.raises(InputError, match=r'scalars\.json, line 1 is damaged'):
        read_run(runs[0])
    log.write_text('')
    with pytest.raises(InputError, match='has no loss'):
        read_run(runs[0])


def test_the_tool(runs, run_tool, tmp_path):
    result = run_tool('compare.py', *runs, '--plot', 'plots/curves.png', check=True)
    assert all(f' {part} ' in result.stdout for part in ('+3.67', '+0.5', '62.83 ± 0.76'))
    with Image.open(tmp_path / 'plots/curves.png') as picture:
        assert picture.size[0] > 1000
    found = json.loads(run_tool('compare.py', *runs, '--json', check=True).stdout)
    assert [group['norm'] for group in found] == ['BN', 'BNET-3']
    wrong = run_tool('compare.py', tmp_path / 'gone')
    assert wrong.returncode == 2 and 'is no folder' in wrong.stderr
    assert 'Traceback' not in wrong.stderr
