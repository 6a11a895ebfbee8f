"""Reading checkpoints: what is taken, what is refused and with which words."""

import os
import pickle

import pytest
import torch

from bnet_mm.checkpoint import latest_checkpoint, read_checkpoint
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


class Hostile:
    def __reduce__(self):
        return os.system, ('exit 1',)


@pytest.mark.parametrize('save', [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_code_is_refused_by_the_name_of_what_it_asked_for(tmp_path, save):
    save({'x': Hostile()}, tmp_path / 'x.pth')
    with pytest.raises(InputError, match=r'was refused: it asks for \w+\.system|cut off'):
        read_checkpoint(tmp_path / 'x.pth')


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
