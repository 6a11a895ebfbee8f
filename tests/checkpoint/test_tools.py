"""The command lines: what they print, write and refuse, and how they end."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
import torchvision
from authors import randomize

from bnet_mm.checkpoint import read_checkpoint
from bnet_mm.checkpoint.writing import sha256


def words_of(table: str) -> list[str]:
    """Returns the words of a table, in Markdown (where rich is not installed) or not."""
    return table.replace('|', ' ').split()


def test_convert_verifies_writes_and_says_how_to_use_it(
    run_tool, call_tool, authors_file, tmp_path
):
    target = tmp_path / 'out.pth'
    verify = ['--verify'] if find_spec('mmdet') else []
    said = run_tool('convert_checkpoint.py', authors_file, target, *verify, check=True).stdout
    said = ' '.join(words_of(said))
    for words in (
        'ResNet-18',
        "BNET in the authors' names, below module.",
        'layer3.{0,1}.bn2 BNET k=5 BNET k=5',
        'dropped, state of the training: epoch, best_prec1, optimizer',
        'dropped, the classifier: module.fc.weight, module.fc.bias',
        "init_cfg': {'type': 'Pretrained'",
    ):
        assert words in said, words
    made = read_checkpoint(target)['meta']['bnet_mm']
    assert made['source_sha256'] == sha256(authors_file)
    assert made['source'] == authors_file.name
    assert 'layer1.0.bn2.dw.weight' in read_checkpoint(target)['state_dict']

    again = call_tool('convert_checkpoint.py', authors_file, target)
    assert again.returncode == 2
    assert 'exists already and was kept' in again.stderr


def test_a_dry_run_writes_nothing(call_tool, authors_file, tmp_path):
    args = (authors_file, tmp_path / 'out.pth', '--k', 7, '--dry-run')
    said = call_tool('convert_checkpoint.py', *args, check=True).stdout
    assert 'BNET k=5 BNET k=7' in ' '.join(words_of(said))
    assert not (tmp_path / 'out.pth').exists()


def test_what_is_not_equal_is_not_written(call_tool, tmp_path):
    pytest.importorskip('mmdet')
    state = randomize(torchvision.models.resnet18()).state_dict()
    state['layer2.0.bn1.weight'] *= float('nan')
    torch.save(state, tmp_path / 'nan.pth')
    result = call_tool(
        'convert_checkpoint.py', tmp_path / 'nan.pth', 'out.pth', '--k', 3, '--verify'
    )
    assert result.returncode == 1
    assert 'not equal' in result.stderr
    assert not (tmp_path / 'out.pth').exists()


def test_unexplained_entries_are_said_and_strict_refuses_them(call_tool, authors18, tmp_path):
    torch.save({**authors18.state_dict(), 'mystery.w': torch.ones(1)}, tmp_path / 'x.pth')
    result = call_tool('convert_checkpoint.py', 'x.pth', 'out.pth', '--strict')
    assert result.returncode == 2
    assert '1 entries are unexplained, and --strict was given: mystery.w' in result.stderr
    assert not (tmp_path / 'out.pth').exists()
    said = call_tool('convert_checkpoint.py', 'x.pth', 'out.pth', check=True).stdout
    assert 'left over, unexplained: mystery.w' in said


@pytest.mark.parametrize('tool', ['convert_checkpoint.py', 'inspect_checkpoint.py'])
def test_a_file_that_is_none_is_one_sentence(call_tool, tool, tmp_path):
    (tmp_path / 'x.pth').write_text('no checkpoint')
    result = call_tool(tool, 'x.pth', *(['out.pth'] if tool.startswith('convert') else []))
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1
    assert 'x.pth cannot be read (13 bytes)' in result.stderr


def test_inspect_shows_kernels_and_what_is_odd(call_tool, authors18, tmp_path):
    state = authors18.state_dict()
    state['layer1.0.bnet2.bnconv.weight'] = torch.zeros(64, 1, 5, 5)
    state['layer1.1.bnet2.bnconv.weight'] = torch.zeros(64, 1, 5, 5)
    state['layer1.1.bnet2.bnconv.weight'][:, :, 2, 2] = 1
    state['layer1.1.bnet2.bnconv.weight'][:, :, 0, 0] = 1
    state['bn1.running_var'][3] = -1
    state['bn1.bias'][:2] = float('inf')
    torch.save({'state_dict': state, 'epoch': 3}, tmp_path / 'x.pth')
    said = call_tool('inspect_checkpoint.py', 'x.pth', check=True).stdout
    rows = [words_of(line) for line in said.splitlines()]
    assert ['layer1.0.bn2', '5', '64', '0.00%', '64'] in rows
    assert ['layer1.1.bn2', '5', '64', '50.00%', '0'] in rows
    for words in (
        'ResNet-18',
        '12 plain, 8 BNET',
        'odd values: 3',
        'bn1.running_var: 1 variances are negative',
        'bn1.bias: 2 of 64 values are NaN or infinite',
        'layer1.0.bn2.dw.weight: every kernel is zero',
        sha256(tmp_path / 'x.pth'),
    ):
        assert words in said, words


def test_publish_prints_the_file(call_tool, authors_file, tmp_path):
    said = call_tool('publish_model.py', authors_file, 'model.pth', check=True).stdout
    (written,) = tmp_path.glob('model-*.pth')
    assert said.splitlines()[-1] == written.name
    assert 'left out, state of the training: epoch, best_prec1, optimizer' in said
