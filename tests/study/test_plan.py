from __future__ import annotations

import pytest
from small_study import PLAN, STUDY

from bnet_mm.errors import InputError
from bnet_study.plan import read_plan


def test_combinations_come_seed_after_seed(plan_file):
    runs = read_plan(plan_file()).runs
    assert [(run.seed, run.arm) for run in runs] == [
        (0, 'bn'), (0, 'bnet3'), (1, 'bn'), (1, 'bnet3')
    ]  # fmt: skip


def test_a_line_that_is_said_twice_is_run_once(plan_file):
    assert len(read_plan(plan_file(runs=PLAN['runs'] * 2)).runs) == 4


def test_what_makes_a_result_makes_the_hash(plan_file):
    first = read_plan(plan_file()).runs
    assert first[0].config_hash == first[2].config_hash != first[1].config_hash
    for entry, name, key, value in (
        ('tasks', 'colours', 'lr', 0.1),
        ('nets', 'tiny', 'channels', 8),
        ('arms', 'bn', 'kernel_lr', 2.0),
    ):
        settings = {**PLAN[entry], name: {**PLAN[entry][name], key: value}}
        assert read_plan(plan_file(**{entry: settings})).runs[0].config_hash != first[0].config_hash
    moved = read_plan(plan_file(data=dict(photos='others'))).runs
    assert moved[0].config_hash != first[0].config_hash
    more = dict(PLAN['tasks'], another=PLAN['tasks']['later'])
    assert read_plan(plan_file(tasks=more)).runs == first


def test_a_start_is_part_of_the_configuration_and_names_its_run(plan_file):
    runs = [
        dict(task='later', net='tiny', start=start, arm='bnet3', seed=3)
        for start in ('scratch', 'colours:bn', 'colours:bnet3', 'weights/some.pth')
    ]
    plan = read_plan(plan_file(runs=runs))
    assert len({run.config_hash for run in plan.runs}) == 4
    assert [getattr(plan.source_of(run), 'name', None) for run in plan.runs] == [
        None, 'colours.tiny.scratch.bn.3', 'colours.tiny.scratch.bnet3.3', None
    ]  # fmt: skip
    assert [run.name for run in plan.runs][1::2] == [
        'later.tiny.colours-bn.bnet3.3', 'later.tiny.some.bnet3.3'
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('entries', 'said'),
    [
        (dict(runs=[dict(task='colours', net='tiny')]), 'run 1 names no arm'),
        (dict(runs=[dict(task='sizes', net='tiny', arm='bn')]), "there is no task 'sizes'"),
        (dict(runs=[dict(task='colours', net='huge', arm='bn')]), "there is no net 'huge'"),
        (dict(runs=[dict(task='colours', net='tiny', arm='gn')]), "there is no arm 'gn'"),
        (dict(runs=[dict(task='colours', net='tiny', arm='bn', seeds=1)]), 'is no line of task'),
        (dict(runs=[dict(task='colours', net='tiny', arm='bn', seed='a')]), "seed 'a' is not"),
        (dict(runs=['colours']), 'is no line of task'),
        (dict(arms=dict(bn=dict(norm='group'))), "norm is 'group', not of bn"),
        (dict(arms=dict(bn=dict(kernels=3))), "has 'kernels'; it may have norm"),
        (dict(arms=dict(bn=dict(kernel_lr='fast'))), "kernel_lr is 'fast', not a factor"),
        (dict(arms=dict(bn=3)), 'arm bn is 3, not settings'),
        (dict(tasks=dict(colours=dict(kind='sorting'))), "has kind 'sorting'"),
        (dict(tasks=dict(colours=dict(kind='classification', data='photos'))), 'lacks size'),
        (dict(nets=dict(tiny=dict(block='basic', blocks=[1], channels=0))), 'channels is 0'),
        (dict(data={}), "names the data 'photos', which data: has not"),
        (dict(data=3), 'data: names with what they mean are wanted'),
        (dict(more={}), 'needs the entries data, nets, arms, tasks, runs'),
    ],
)
def test_a_wrong_plan_is_one_sentence(plan_file, entries, said):
    with pytest.raises(InputError, match=said.replace('[', r'\[')):
        read_plan(plan_file(**entries))


def test_other_data(plan_file):
    (first, *_), (other, *_) = (
        read_plan(plan_file(), data).runs for data in (None, {'photos': '/elsewhere'})
    )
    assert other.config['data'] == '/elsewhere' and other.config_hash != first.config_hash
    with pytest.raises(InputError, match="has no data 'pictures' to be elsewhere; it has photos"):
        read_plan(plan_file(), {'pictures': 'x'})


def test_no_plan(tmp_path):
    with pytest.raises(InputError, match='cannot be read'):
        read_plan(tmp_path / 'none.yaml')
    (tmp_path / 'bad.yaml').write_text('a: [')
    with pytest.raises(InputError, match='cannot be read'):
        read_plan(tmp_path / 'bad.yaml')


@pytest.mark.parametrize('file', sorted(STUDY.glob('*.yaml')), ids=lambda file: file.stem)
def test_the_plans_that_are_here(file):
    plan = read_plan(file)
    assert len({run.name for run in plan.runs}) == len(plan.runs)
    for run in plan.runs:
        source = plan.source_of(run)
        assert source is None or source.config_hash in {r.config_hash for r in plan.runs}
