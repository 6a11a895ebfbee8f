"""Curves: what is drawn of finished, short and running trainings, and what cannot be."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from bnet_mm.analysis.comparison import LOSS, group_runs
from bnet_mm.analysis.runs import read_run
from bnet_mm.errors import InputError
from bnet_mm.reports.curves import draw_curves, plot_curves


def drawn(runs, metric, over_time=False):
    panel = Figure().subplots()
    draw_curves(panel, group_runs([read_run(run) for run in runs]), metric, over_time)
    return panel


def test_lines_are_means_over_seeds_and_bands_reach_from_the_lowest_to_the_highest(runs):
    panel = drawn(runs, 'accuracy/top1')
    plain, enhanced = panel.get_lines()
    assert list(plain.get_xdata()) == [1, 2, 3]
    assert plain.get_ydata() == pytest.approx([50, 60, 59.1666], abs=1e-3)
    assert enhanced.get_ydata() == pytest.approx([55, 61.6666, 62.8333], abs=1e-3)
    ends = panel.collections[0].get_paths()[0].get_extents()
    assert (ends.ymin, ends.ymax) == (49, 61)
    loss = drawn(runs, LOSS)
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ['BN (resnet50_bn_100e_in1k)', 'BNET-3 (resnet50_bnet3_100e_in1k)']
    hours = drawn(runs, 'accuracy/top1', over_time=True).get_lines()[0].get_xdata()
    assert hours == pytest.approx([0.001, 0.002, 0.003])


def test_a_training_that_just_began_is_seen(write_run, tmp_path):
    run = write_run(tmp_path / 'run', 'BN', 0, [50.0])
    with (run / '2026_1/vis_data/scalars.json').open('a') as log:
        log.write(json.dumps({'loss': 2.0, 'epoch': 2, 'step': 3, 'time': 1.8}) + '\n{"lo')
    for metric, points in (('accuracy/top1', 1), (LOSS, 2)):
        [line] = drawn([run], metric).get_lines()
        assert len(line.get_xdata()) == points and line.get_marker() == 'o'


def test_a_metric_that_is_not_there_is_named(runs, tmp_path):
    with pytest.raises(InputError, match="no run has 'mIoU'; they have accuracy/top1"):
        plot_curves(group_runs([read_run(runs[1])]), tmp_path / 'x.png', 'mIoU')


def test_runs_that_count_otherwise_or_have_no_metric(runs, write_run, tmp_path):
    other = write_run(tmp_path / 'other', 'GN', 0, [])
    [log] = other.glob('*/vis_data/scalars.json')
    log.write_text('\n'.join(json.dumps({'loss': 1.0, 'time': 9.0, 'step': s}) for s in (5, 10)))
    groups = group_runs([read_run(run) for run in (runs[0], other)])
    with pytest.raises(InputError, match='draw them --over time'):
        plot_curves(groups, tmp_path / 'x.png')
    plot_curves(groups, tmp_path / 'x.png', over_time=True)
    assert len(drawn([runs[0], other], 'accuracy/top1', over_time=True).get_lines()) == 1
    plain, grouped = drawn([runs[0], other], LOSS, over_time=True).get_lines()
    assert len(plain.get_xdata()) == 3 and grouped.get_xdata() == pytest.approx([0.0125, 0.025])


@pytest.mark.parametrize('over', ['epochs', 'time'])
def test_curves(over, runs, call_tool, tmp_path):
    call_tool('analyze.py', 'curves', *runs, '--out', 'c.pdf', '--over', over, check=True)
    assert (tmp_path / 'c.pdf').read_bytes().startswith(b'%PDF')
    wrong = call_tool('analyze.py', 'curves', *runs, '--metric', 'mIoU')
    assert wrong.returncode == 2 and 'no run has' in wrong.stderr
