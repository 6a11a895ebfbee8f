from __future__ import annotations

import json
import re

import pytest
from small_study import STUDY

from bnet_study.records import append, read_records

RESULTS = STUDY / 'results'


def line(arm: str, seed: int, top1: float, **more) -> dict:
    return dict(
        task='photos', data='d', net='n', start='scratch', arm=arm, seed=seed, seconds=9.0,
        config_hash=f'hash{arm}', parameters=1000, machine=dict(cpu='some'),
        test=dict(top1=top1, ece=3.0, nll=1.0, top1_noise=top1 - 5),
        curve=dict(top1=[top1 / 2, top1 - 1, top1], loss=[2, 1.5, 1], seconds=[3, 6, 9]),
        kernels={'layer1.0.bn2': 0.25} if arm != 'bn' else {}, **more,
    )  # fmt: skip


@pytest.fixture
def lines(tmp_path):
    folder = tmp_path / 'lines'
    for seed, (bn, bnet) in enumerate(((70.0, 71.1), (70.5, 71.4), (69.5, 70.6))):
        append(folder / 'runs.jsonl', line('bn', seed, bn))
        append(folder / 'runs.jsonl', line('bnet3', seed, bnet))
    append(folder / 'again.jsonl', line('bn', 0, 70.25))
    times = [dict(task='photos', net='n', arm=a, seconds=0.1, ratio=r)
             for a, r in (('bn', 1.0), ('bnet3', 1.1))]  # fmt: skip
    (folder / 'times.json').write_text(json.dumps(dict(machine={}, steps=times)))
    return folder


def test_tables_and_figures_follow_from_the_lines(study, lines):
    study('--results', lines, program='report.py')
    text = (lines / 'README.md').read_text()
    # again.jsonl is read first, so that its line is the first one of bn, seed 0.
    assert '| photos, n | scratch | bnet3 | bn | 3 | +0.95 |' in text and '| gain |' in text
    assert '70.08 ± 0.52' in text and '71.03 ± 0.40' in text
    assert '1 comparisons, 1 of them tested' in text
    assert '| photos, n | scratch | bnet3 | 3 3 2 | 3 |' in text  # epochs to bn's figure
    assert '25.0' in text and 'Runs that were repeated' in text and '-0.25' in text
    assert '| photos, n | bnet3 | 100 | 1.100 |' in text
    figures = re.findall(r'!\[\w+\]\((.+)\)', text)
    assert figures and all((lines / figure).stat().st_size > 5000 for figure in figures)


def test_lines_of_several_folders(study, lines, tmp_path):
    append(tmp_path / 'mine' / 'a.jsonl', line('control3', 0, 60.0))
    out = tmp_path / 'report'
    study('--results', tmp_path / 'mine', lines, '--out', out, program='report.py')
    assert 'control3' in (out / 'README.md').read_text() and not (lines / 'README.md').exists()


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'has no lines of results'),
        ('{', 'line 1 is no JSON'),
        ('[]', 'line 1 lacks task'),
        ('{"task": "t"}', 'line 1 lacks data, net'),
    ],
)
def test_wrong_lines_are_one_sentence(study, tmp_path, text, said):
    (tmp_path / 'lines').mkdir()
    (tmp_path / 'lines' / 'runs.jsonl').write_text(text)
    result = study('--results', tmp_path / 'lines', program='report.py', ok=False)
    assert result.returncode == 2 and said in result.stderr
    assert not (tmp_path / 'lines' / 'README.md').exists()


@pytest.mark.skipif(not list(RESULTS.glob('*.jsonl')), reason='there are no results here')
def test_the_report_that_is_here_follows_from_the_lines_that_are_here(study, tmp_path):
    study('--results', RESULTS, '--out', tmp_path, program='report.py')
    assert (tmp_path / 'README.md').read_text() == (RESULTS / 'README.md').read_text()
    made = {file.name for file in tmp_path.glob('*.png')}
    assert made == {file.name for file in RESULTS.glob('*.png')}


def test_figures_of_the_readme_are_the_results():
    readme = (STUDY.parent / 'README.md').read_text()
    section = readme.partition('## Measured here')[2].partition('\n## ')[0]
    figures = re.findall(r'\d+\.\d\d ± \d\.\d\d', section)
    assert len(figures) >= 6 and all(f in (RESULTS / 'README.md').read_text() for f in figures)


@pytest.mark.skipif(not list(RESULTS.glob('*.jsonl')), reason='there are no results here')
def test_lines_name_no_machine_but_its_processor():
    for record in read_records(sorted(RESULTS.glob('*.jsonl'))):
        assert not re.search(r'"/(root|home|work|tmp)', json.dumps(record))
        log = RESULTS / 'logs' / f'{run_name(record)}.txt'
        assert log.is_file() and not re.search('/(root|home|work|tmp)/', log.read_text())


def run_name(record: dict) -> str:
    start = record['start'].replace(':', '-')
    return '.'.join([record['task'], record['net'], start, record['arm'], str(record['seed'])])
