from __future__ import annotations

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from bnet_study.comparing import (
    cells_of,
    comparisons_of,
    corrected,
    epochs_to,
)


def line(arm: str, seed: int, top1: float, start: str = 'scratch', **more) -> dict:
    return dict(
        task='t', data='d', net='n', start=start, arm=arm, seed=seed, seconds=1.0,
        config_hash=f'{start}{arm}', test=dict(top1=top1), curve=dict(top1=[top1 / 2, top1]),
        **more,
    )  # fmt: skip


def compared(*lines: dict) -> list:
    return comparisons_of(cells_of(lines)[0])


figures = st.lists(st.floats(10, 90), min_size=3, max_size=6, unique=True)


@given(figures, st.data())
def test_pairs_are_tested_as_scipy_does(theirs, data):
    ours = data.draw(st.lists(st.floats(10, 90), min_size=len(theirs), max_size=len(theirs)))
    lines = [line('bn', i, v) for i, v in enumerate(theirs)]
    lines += [line('bnet3', i, v) for i, v in reversed(list(enumerate(ours)))]
    (found,) = compared(*lines)
    differences = [a - b for a, b in zip(ours, theirs)]
    assert found.difference == pytest.approx(sum(differences) / len(differences))
    assert found.low <= found.difference <= found.high
    if found.p is not None:
        expected = ttest_rel(ours, theirs)
        interval = expected.confidence_interval(0.95)
        assert found.p == found.corrected == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_holm_corrects_for_all_that_were_tested():
    arms = {'bn': [1, 2, 3], 'bnet3': [2.0, 3.1, 4.2], 'bnet5': [2.0, 4.0, 4.0], 'x': [1.0, 2.5, 2]}
    found = compared(*(line(a, i, v) for a, vs in arms.items() for i, v in enumerate(vs)))
    p = sorted(c.p for c in found)
    expected, largest = [], 0.0
    for i, value in enumerate(p):
        largest = max(largest, min(1, value * (3 - i)))
        expected.append(largest)
    assert [c.corrected for c in sorted(found, key=lambda c: c.p)] == pytest.approx(expected)
    assert corrected(found) == found


@pytest.mark.parametrize(
    ('ours', 'verdict'),
    [
        ([72.0, 72.1, 71.9, 72.0], 'gain'),
        ([68.0, 68.1, 67.9, 68.0], 'loss'),
        ([70.11, 70.09, 70.1, 70.12], 'no gain'),  # sure, and too little
        ([69.9, 70.1, 70.0, 70.0], 'no gain'),
        ([68.0, 72.0, 69.0, 73.0], 'undecided'),
        ([75.0], 'undecided'),
    ],
)
def test_what_counts_as_a_gain(ours, verdict):
    lines = [line('bn', i, 70.0) for i in range(4)]
    (found,) = compared(*lines, *(line('bnet3', i, v) for i, v in enumerate(ours)))
    assert found.verdict == verdict


def test_which_comparisons_are_made():
    lines = [
        line(arm, seed, 70.0 + seed)
        for arm in ('bn', 'bnet3', 'control3', 'dw3', 'bnet5', 'wide_19')
        for seed in (0, 1)
    ]
    for start, arm in (('s:bn', 'bn'), ('s:bn', 'bnet3'), ('s:bnet3', 'bnet3')):
        lines.append(line(arm, 0, 80.0, start))
    found = {(c.ours.start, c.ours.arm, c.theirs.start, c.theirs.arm) for c in compared(*lines)}
    scratch = [('bnet3', 'bn'), ('bnet3', 'control3'), ('bnet3', 'dw3'), ('control3', 'bn'),
               ('dw3', 'bn'), ('bnet5', 'bn'), ('bnet5', 'wide_19'), ('wide_19', 'bn')]  # fmt: skip
    assert found == {
        *(('scratch', ours, 'scratch', theirs) for ours, theirs in scratch),
        ('s:bn', 'bnet3', 's:bn', 'bn'),
        ('s:bnet3', 'bnet3', 's:bn', 'bnet3'),
        ('s:bnet3', 'bnet3', 's:bn', 'bn'),
    }


def test_only_pairs_of_one_seed_count():
    (found,) = compared(line('bn', 0, 70.0), line('bn', 1, 90.0), line('bnet3', 0, 71.0))
    assert (found.pairs, found.difference, found.p) == (1, 1.0, None) and isnan(found.low)
    assert compared(line('bn', 0, 70.0), line('bnet3', 1, 71.0)) == []


def test_the_first_line_of_a_run_counts_and_the_others_are_shown():
    lines = [line('bn', 0, 70.0), line('bn', 0, 70.5), line('bn', 1, 71.0)]
    (cell,), repeats = cells_of(lines)
    assert cell.values() == {0: 70.0, 1: 71.0} and repeats == [(lines[0], lines[1])]


def test_two_configurations_of_one_name_are_kept_apart():
    other = {**line('bn', 0, 50.0), 'config_hash': 'other'}
    cells, _ = cells_of([line('bn', 0, 70.0), other])
    assert [cell.arm for cell in cells] == ['bn', 'bn (other)']


def test_epochs_to_a_figure():
    run = dict(curve=dict(top1=[10, 30, 20, 40]))
    assert [epochs_to(run, 'top1', v) for v in (5, 30, 35, 50)] == [1, 2, 4, None]
    run['curve']['loss'] = [1.0] * 12  # evaluated after every third
    assert [epochs_to(run, 'top1', v) for v in (5, 35)] == [3, 12]
