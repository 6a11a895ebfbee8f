"""The workflows (.github/) as files: what they call, what they may do, what they pin."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / '.github'
WORKFLOWS = sorted(GITHUB.glob('workflows/*.yml'))
ACTIONS = sorted(GITHUB.glob('actions/*/action.yml'))
FORMS = sorted(GITHUB.glob('ISSUE_TEMPLATE/*.yml'))
ROWS = sorted((ROOT / 'tests/compat/rows').glob('*.txt'))
# Jobs that may write, and what.
MAY_WRITE = {
    ('release', 'publish'): {'id-token': 'write'},
    ('release', 'notes'): {'contents': 'write'},
}


def load(path: Path) -> dict:
    parsed = yaml.safe_load(path.read_text())
    if True in parsed:  # YAML 1.1 reads the key `on` so
        parsed['on'] = parsed.pop(True)
    return parsed


def steps_of(path: Path) -> list[dict]:
    parsed = load(path)
    if 'runs' in parsed:
        return parsed['runs']['steps']
    return [step for job in parsed['jobs'].values() for step in job.get('steps', [])]


def targets() -> set[str]:
    makefile = (ROOT / 'Makefile').read_text()
    return set(re.findall(r'^([\w-]+):(?!=)', makefile, re.MULTILINE))


def called_by(workflow: str) -> set[str]:
    """Returns the targets of make that the steps of a workflow call."""
    commands = '\n'.join(step.get('run', '') for step in steps_of(GITHUB / workflow))
    return set(re.findall(r'^\s*make ([\w-]+)', commands, re.MULTILINE))


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_what_is_made_is_a_target_of_the_makefile(path):
    assert called_by(f'workflows/{path.name}') <= targets()


def test_every_check_that_a_person_makes_is_there():
    assert called_by('workflows/ci.yml') == {'lint', 'test', 'docs', 'wheels'}
    assert called_by('workflows/compat.yml') == {'compat'}
    assert called_by('workflows/release.yml') == {'release'}
    assert any(s.get('run') == 'benchmarks/gpu.sh' for s in steps_of(GITHUB / 'workflows/gpu.yml'))
    for path in ('benchmarks/gpu.sh', 'tests/compat/run.sh', 'release/run.sh'):
        assert (ROOT / path).stat().st_mode & 0o111, f'{path} cannot be run'


def test_each_environment_is_a_row_with_its_python():
    matrix = load(GITHUB / 'workflows/compat.yml')['jobs']['row']['strategy']['matrix']['include']
    assert {entry['row']: entry['python'] for entry in matrix} == {
        path.stem: re.match(r'# python (\S+)\n', path.read_text())[1] for path in ROWS
    }


@pytest.mark.parametrize('path', [*WORKFLOWS, *ACTIONS], ids=lambda path: path.stem)
def test_actions_are_named_by_a_major_version(path):
    for uses in (step['uses'] for step in steps_of(path) if 'uses' in step):
        if uses.startswith('./'):
            assert (ROOT / uses / 'action.yml').is_file()
        else:
            assert re.fullmatch(r'[\w-]+/[\w-]+@(v\d+|release/v\d+)', uses), uses


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_no_more(path):
    workflow = load(path)
    assert workflow['permissions'] == {'contents': 'read'}
    for name, job in workflow['jobs'].items():
        assert job.get('permissions') == MAY_WRITE.get((path.stem, name))
        if 'uses' in job:
            assert (ROOT / job['uses']).is_file()
        else:
            assert job['timeout-minutes'] <= 120
    called = list(workflow['on']) == ['workflow_call']
    assert called or 'concurrency' in workflow


def test_what_costs_or_publishes_waits_for_a_variable():
    assert 'pull_request' not in load(GITHUB / 'workflows/gpu.yml')['on']
    (gpu,) = load(GITHUB / 'workflows/gpu.yml')['jobs'].values()
    assert gpu['if'] == "vars.GPU_RUNNER == 'true'"
    publish = load(GITHUB / 'workflows/release.yml')['jobs']['publish']
    assert publish['if'] == "vars.PUBLISH == 'true'"
    assert publish['environment'] == 'pypi'
    assert publish['needs'] == 'compat'


@pytest.mark.parametrize('path', [*WORKFLOWS, *ACTIONS], ids=lambda path: path.stem)
def test_no_script_is_written_by_what_others_name(path):
    """An expression in a script is pasted into it: names of branches come by the environment."""
    for step in steps_of(path):
        assert not re.search(r'\$\{\{\s*(github|inputs)', step.get('run', '')), step['run']


@pytest.mark.parametrize('path', FORMS, ids=lambda path: path.stem)
def test_forms_are_what_github_reads(path):
    form = load(path)
    if path.stem == 'config':
        assert form['blank_issues_enabled'] in (True, False)
        return
    assert {'name', 'description', 'body'} <= set(form)
    kinds = {'markdown', 'textarea', 'input', 'dropdown', 'checkboxes'}
    assert {entry['type'] for entry in form['body']} <= kinds
    ids = [entry['id'] for entry in form['body'] if entry['type'] != 'markdown']
    assert len(set(ids)) == len(ids)
    assert any(entry.get('validations', {}).get('required') for entry in form['body'])
    for entry in form['body']:
        assert entry['attributes'].get('label') or entry['type'] == 'markdown'


def test_forms_ask_for_the_examination_and_it_has_these_arguments():
    asked = [p.stem for p in FORMS if 'python tools/doctor.py CONFIG' in p.read_text()]
    assert asked == ['bug', 'number']
    doctor = (ROOT / 'tools/doctor.py').read_text()
    for argument in ("'checkpoint', nargs='?'", "'--json'"):
        assert argument in doctor


def test_actionlint_finds_nothing():
    program = shutil.which('actionlint')
    if program is None:
        pytest.skip('actionlint is not installed')
    result = subprocess.run([program, '-no-color'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
