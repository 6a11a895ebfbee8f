"""Reading checkpoints: what is accepted, what is refused and with which message."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bnet_mm.checkpoint import contents_of, latest_checkpoint, read_checkpoint, reading
from bnet_mm.errors import InputError


@pytest.mark.parametrize('zipped', [True, False])
def test_reads_both_of_torchs_formats(tmp_path, zipped):
    path = tmp_path / 'x.pth'
    torch.save({'w': torch.ones(3)}, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_checkpoint(path)['w'], torch.ones(3))


@pytest.mark.parametrize('kept', [0, 10, 600, -100])
def test_a_cut_off_file_is_one_sentence(tmp_path, kept):
    path = tmp_path / 'x.pth'
    torch.save({'w': torch.ones(300)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r'x\.pth cannot be read \(\d+ bytes\): it is cut off'):
        read_checkpoint(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match='there is no file at'):
        read_checkpoint(tmp_path / 'none.pth')
    with pytest.raises(InputError, match='there is a folder at'):
        read_checkpoint(tmp_path)


def test_paths_that_the_system_does_not_take():
    for path in ('x' * 300 + '.pth', '~nosuchuser/x.pth'):
        with pytest.raises(InputError, match='cannot be read: '):
            read_checkpoint(path)


def test_a_compressed_file_that_is_cut_off(tmp_path):
    (tmp_path / 'x.pth').write_bytes(gzip.compress(b'x' * 100)[:20])
    with pytest.raises(InputError, match='cut off'):
        read_checkpoint(tmp_path / 'x.pth')


class Hostile:
    def __reduce__(self):
        return os.system, ('exit 1',)


@pytest.mark.parametrize(
    'save',
    [
        torch.save,
        lambda x, p: torch.save(x, p, _use_new_zipfile_serialization=False),
        lambda x, p: torch.save(x, p, pickle_protocol=4),
        lambda x, p: p.write_bytes(pickle.dumps(x)),
        lambda x, p: p.write_bytes(pickle.dumps(x, protocol=0)),
    ],
)
def test_code_is_refused_by_the_name_of_what_it_asked_for(tmp_path, save):
    save({'x': Hostile()}, tmp_path / 'x.pth')
    with pytest.raises(InputError, match=r'was refused: it asks for posix\.system'):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('name', ['z.pth', 'legacy.pth', 'x.safetensors'])
def test_damage_anywhere_is_one_sentence(tmp_path, name):
    state = {'layer.weight': torch.randn(40, 7), 'layer.bias': torch.ones(40)}
    if name == 'x.safetensors':
        save_file(state, tmp_path / name)
    else:
        zipped = name == 'z.pth'
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / name).read_bytes()
    random.seed(0)
    for kept in sorted(random.randrange(len(whole)) for _ in range(20)):
        (tmp_path / name).write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r'cannot be read \(\d+ bytes\)'):
            read_checkpoint(tmp_path / name)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        with contextlib.suppress(InputError):  # a changed number is not found; nothing else escapes
            contents_of(read_checkpoint(tmp_path / name))


def test_a_zip_that_unpacks_to_more_than_it_holds(tmp_path):
    with zipfile.ZipFile(tmp_path / 'x.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', b'0' * 50_000_000)
    with pytest.raises(InputError, match=r'compressed archive \(50000000 bytes when unpacked\)'):
        read_checkpoint(tmp_path / 'x.pth')


def test_a_header_that_claims_more_than_there_is(tmp_path):
    (tmp_path / 'x.safetensors').write_bytes((1 << 60).to_bytes(8, 'little') + b'{"a":1}')
    with pytest.raises(InputError, match='cannot be read'):
        read_checkpoint(tmp_path / 'x.safetensors')


def test_other_kinds_of_file_are_told_apart(tmp_path):
    (tmp_path / 'text.pth').write_text('<html>404 not found</html>')
    with pytest.raises(InputError, match='no torch checkpoint'):
        read_checkpoint(tmp_path / 'text.pth')
    with tarfile.open(tmp_path / 'x.pth.tar', 'w') as archive:
        archive.add(tmp_path / 'text.pth')
    with pytest.raises(InputError, match='is a tar archive'):
        read_checkpoint(tmp_path / 'x.pth.tar')
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / 'script.pt')
    with pytest.raises(InputError, match='is a TorchScript program'):
        read_checkpoint(tmp_path / 'script.pt')
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(InputError, match='no regular file'):
        read_checkpoint(tmp_path / 'pipe')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_file_without_permission(tmp_path):
    torch.save({}, tmp_path / 'x.pth')
    (tmp_path / 'x.pth').chmod(0)
    with pytest.raises(InputError, match='cannot be read: Permission denied'):
        read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.skipif(not reading.TRUSTED, reason='the unpickler for older releases reads them all')
def test_a_pickle_protocol_that_torch_does_not_read_safely_is_named(tmp_path):
    logging = pytest.importorskip('mmengine.logging')
    history = logging.HistoryBuffer([1.0], [1])
    for checkpoint in ({'w': torch.ones(1)}, {'loss': history, 'n': np.float32(1)}):
        torch.save(checkpoint, tmp_path / 'x.pth', pickle_protocol=4)
        with pytest.raises(InputError, match=r'x\.pth is pickled in protocol 4'):
            read_checkpoint(tmp_path / 'x.pth')


@pytest.mark.parametrize('zipped', [True, False])
def test_a_whole_file_that_memory_does_not_suffice_for(zipped, tmp_path):
    torch.save({'w': torch.ones(10**8)}, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    script = f"""
import resource
from bnet_mm.checkpoint import read_checkpoint
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 10**8,) * 2)
read_checkpoint({str(tmp_path / 'x.pth')!r})
"""
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    (tmp_path / 'x.pth').unlink()
    assert 'InputError: checkpoint' in result.stderr.splitlines()[-1]
    assert 'asks for more memory than there is' in result.stderr.splitlines()[-1]


def test_metadata_of_safetensors_that_is_none(tmp_path):
    save_file({'w': torch.ones(1)}, tmp_path / 'x.safetensors', metadata={'meta': '{'})
    with pytest.raises(InputError, match="its entry 'meta' is not JSON"):
        read_checkpoint(tmp_path / 'x.safetensors')


def test_safetensors_without_its_package(tmp_path, monkeypatch):
    save_file({'w': torch.ones(1)}, tmp_path / 'x.safetensors')
    monkeypatch.setitem(sys.modules, 'safetensors', None)  # as if it were not installed
    with pytest.raises(InputError, match=r'x\.safetensors needs the package safetensors'):
        read_checkpoint(tmp_path / 'x.safetensors')


def test_options_of_a_training_are_no_reason_to_refuse(tmp_path):
    torch.save(
        {'args': argparse.Namespace(lr=0.1), 'model': {'w': torch.ones(1)}}, tmp_path / 'x.pth'
    )
    contents = contents_of(read_checkpoint(tmp_path / 'x.pth'))
    assert list(contents.state) == ['w']
    assert list(contents.dropped) == ['args']


@pytest.mark.parametrize(
    ('checkpoint', 'sentence'),
    [
        ([1, 2], 'holds a list, where a dict of named tensors is needed'),
        (3, 'holds a int, where'),
        ({}, 'no tensors by name'),
        ({'state_dict': {}}, 'no tensors by name'),
        ({'state_dict': {'a': 1}}, 'no tensors by name'),
    ],
)
def test_a_checkpoint_without_named_tensors(checkpoint, sentence):
    with pytest.raises(InputError, match=sentence):
        contents_of(checkpoint)


def training_state(path, epoch):
    torch.save({'optimizer': {}, 'meta': {'epoch': epoch}}, path)
    os.utime(path, (epoch, epoch))


def test_latest_is_what_the_note_names(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for epoch in (1, 2, 3):
        training_state(tmp_path / f'epoch_{epoch}.pth', epoch)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


@pytest.mark.parametrize('note', [None, '', '/elsewhere/epoch_9.pth', 'epoch_3.pth'])
def test_latest_survives_a_note_or_a_file_that_was_cut_off(tmp_path, note):
    for epoch in (1, 2, 3):
        training_state(tmp_path / f'epoch_{epoch}.pth', epoch)
    (tmp_path / 'epoch_3.pth').write_bytes(b'PK half of it')
    os.utime(tmp_path / 'epoch_3.pth', (3, 3))
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note)
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


def test_latest_follows_a_moved_work_dir(tmp_path):
    training_state(tmp_path / 'epoch_1.pth', 1)
    training_state(tmp_path / 'epoch_2.pth', 2)
    (tmp_path / 'last_checkpoint').write_text('/old/place/epoch_1.pth')
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'


def test_latest_of_a_copied_work_dir_is_the_copy_s(tmp_path):
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    original.mkdir()
    training_state(original / 'epoch_1.pth', 1)
    (original / 'last_checkpoint').write_text(str(original / 'epoch_1.pth'))
    shutil.copytree(original, copy)
    assert latest_checkpoint(copy) == copy / 'epoch_1.pth'
    training_state(original / 'epoch_2.pth', 2)
    (copy / 'last_checkpoint').write_text(str(original / 'epoch_2.pth'))
    assert latest_checkpoint(copy) == copy / 'epoch_1.pth'
    (copy / 'epoch_1.pth').unlink()  # checkpoints that are kept elsewhere
    assert latest_checkpoint(copy) == original / 'epoch_2.pth'
