"""Writing: atomic, and never over an existing file."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
import torch

from bnet_mm.checkpoint import publish, read_checkpoint, write_checkpoint
from bnet_mm.checkpoint.writing import sha256
from bnet_mm.errors import InputError

CHECKPOINT = {
    'meta': {'bnet_mm': {'source': 'x.pth', 'date': '2026'}},
    'state_dict': {'a': torch.arange(4.0).half(), 'n': torch.tensor(7)},
}


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.safetensors'])
def test_what_is_written_is_read(suffix, tmp_path):
    path = write_checkpoint(CHECKPOINT, tmp_path / f'x{suffix}')
    back = read_checkpoint(path)
    assert back['meta'] == CHECKPOINT['meta']  # what JSON cannot hold is not in it
    for name, value in CHECKPOINT['state_dict'].items():
        assert back['state_dict'][name].dtype == value.dtype
        assert torch.equal(back['state_dict'][name], value)
    assert list(tmp_path.iterdir()) == [path]


def test_one_memory_under_two_names_goes_into_safetensors(tmp_path):
    value = torch.arange(6.0).reshape(2, 3)
    path = write_checkpoint(
        {'state_dict': {'a': value, 'b': value, 'c': value.T}}, tmp_path / 'x.safetensors'
    )
    back = read_checkpoint(path)['state_dict']
    assert torch.equal(back['b'], value)
    assert torch.equal(back['c'], value.T)


def test_the_same_contents_have_the_same_hash(tmp_path):
    first = write_checkpoint(CHECKPOINT, tmp_path / 'a.pth')
    assert sha256(first) == sha256(write_checkpoint(CHECKPOINT, tmp_path / 'b.pth'))


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    path = tmp_path / 'x.pth'
    path.write_text('precious')
    with pytest.raises(InputError, match='exists already and was kept'):
        write_checkpoint(CHECKPOINT, path)
    assert path.read_text() == 'precious'
    write_checkpoint(CHECKPOINT, path, force=True)
    assert 'state_dict' in read_checkpoint(path)


def test_places_where_nothing_can_be_written(tmp_path):
    with pytest.raises(InputError, match='there is no folder'):
        write_checkpoint(CHECKPOINT, tmp_path / 'none/x.pth')
    with pytest.raises(InputError, match=r'written as \.pth, \.pt, \.safetensors'):
        write_checkpoint(CHECKPOINT, tmp_path / 'x.onnx')
    (tmp_path / 'folder.pth').mkdir()
    with pytest.raises(InputError, match='is not a regular file'):
        write_checkpoint(CHECKPOINT, tmp_path / 'folder.pth', force=True)


def test_safetensors_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)  # as if it were not installed
    with pytest.raises(InputError, match=r'file needs the package safetensors: pip install'):
        write_checkpoint(CHECKPOINT, tmp_path / 'x.safetensors')
    assert not list(tmp_path.iterdir())


def test_names_that_the_system_does_not_take(tmp_path):
    with pytest.raises(InputError, match='cannot be written: File name too long'):
        write_checkpoint(CHECKPOINT, tmp_path / f'{"x" * 300}.pth')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r'could not be written \(Permission denied\)'):
        write_checkpoint(CHECKPOINT, tmp_path / 'x.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_full_disk_leaves_nothing(suffix, tmp_path):
    """A limit on the size of files stands for the disk."""
    script = f"""
import torch
from bnet_mm.checkpoint import write_checkpoint
write_checkpoint({{'state_dict': {{'a': torch.ones(10**6)}}}}, {str(tmp_path / f'x{suffix}')!r})
"""
    result = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)),
    )
    assert 'InputError' in result.stderr
    assert 'could not be written' in result.stderr
    assert 'File too large' in result.stderr
    assert not list(tmp_path.iterdir())


def test_publishing_keeps_weights_and_metadata_only(tmp_path):
    torch.save(
        {
            'meta': {'dataset_meta': {'classes': ('a', 'b')}},
            'state_dict': {'w': torch.ones(3), 'x.w': torch.ones(2), 'ema_x_w': torch.ones(2)},
            'ema_state_dict': {'w': torch.zeros(3)},
            'optimizer': {'state': {}},
            'message_hub': {},
            'notes': 'kept',
        },
        tmp_path / 'epoch_1.pth',
    )
    path, dropped = publish(tmp_path / 'epoch_1.pth', tmp_path / 'model.pth')
    assert path.name == f'model-{sha256(path)[:8]}.pth'
    published = read_checkpoint(path)
    assert published['meta'] == {'dataset_meta': {'classes': ('a', 'b')}}
    assert set(published) == {'meta', 'state_dict', 'notes'}
    assert set(published['state_dict']) == {'w', 'x.w'}
    assert set(dropped) == {'ema_state_dict', 'optimizer', 'message_hub', 'ema_x_w'}
    with pytest.raises(InputError, match='exists already'):
        publish(tmp_path / 'epoch_1.pth', tmp_path / 'model.pth')
    assert publish(tmp_path / 'epoch_1.pth', tmp_path / 'model.pth', force=True)[0] == path
    assert {file.name for file in tmp_path.iterdir()} == {'epoch_1.pth', path.name}
