from __future__ import annotations

import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from small_study import draw_photos

from bnet_mm.errors import InputError
from bnet_study.images import read_images


def test_folders_and_archives_give_the_same(photos, tmp_path):
    folder = photos / 'photos'
    read = read_images(folder, 16, tmp_path / 'cache')
    assert read.train[0].shape == (40, 3, 16, 16) and read.test[0].shape == (20, 3, 16, 16)
    assert read.classes == ('blue', 'red') and read.train[1].tolist() == [0] * 20 + [1] * 20
    first = np.asarray(Image.open(folder / 'train' / 'blue' / '000.png')).transpose(2, 0, 1)
    assert (read.train[0][0] == first).all()
    shutil.make_archive(str(tmp_path / 'zipped'), 'zip', folder)
    shutil.make_archive(str(tmp_path / 'tarred'), 'xztar', photos, 'photos')  # a folder around
    for file in ('zipped.zip', 'tarred.tar.xz'):
        assert read_images(tmp_path / file, 16, tmp_path / 'cache').digest == read.digest


def test_what_was_read_once_is_read_from_the_cache(photos, tmp_path, capsys):
    for _ in range(2):
        read = read_images(photos / 'photos', 16, tmp_path / 'cache')
    assert capsys.readouterr().out.count('decoded once') == 1
    draw_photos(photos / 'photos' / 'test', 5)  # 'test' is before 'val': other data
    other = read_images(photos / 'photos', 16, tmp_path / 'cache')
    assert (len(other.test[1]), other.digest == read.digest) == (10, False)


def test_photos_of_any_size_are_scaled_and_cut(tmp_path):
    folder = draw_photos(tmp_path / 'sized' / 'train', 1, size=40)
    draw_photos(tmp_path / 'sized' / 'test', 1, size=40)
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255  # the middle third
    Image.fromarray(wide).convert('L').save(folder / 'red' / '000.png')  # grey, too
    read = read_images(tmp_path / 'sized', 10, tmp_path / 'cache')
    assert read.train[0].shape == (2, 3, 10, 10) and read.train[0][1].mean() > 240


def test_classes_alone_are_split(tmp_path):
    draw_photos(tmp_path / 'all', 10)
    read = read_images(tmp_path / 'all', 16, tmp_path / 'cache')
    assert (len(read.train[1]), len(read.test[1])) == (16, 4)
    assert read.test[1].tolist() == [0, 0, 1, 1] and 'no test split' in read.remark


def test_tiny_imagenets_list_of_validation_photos(tmp_path):
    root = tmp_path / 'tiny'
    draw_photos(root / 'train', 3)
    for name in ('red', 'blue'):  # train/CLASS/images/*.png
        (root / 'train' / name / 'images').mkdir()
        for file in list((root / 'train' / name).glob('*.png')):
            file.rename(file.parent / 'images' / file.name)
    (root / 'val' / 'images').mkdir(parents=True)
    (root / 'test' / 'images').mkdir(parents=True)  # of classes that nobody tells
    Image.new('RGB', (16, 16)).save(root / 'test' / 'images' / 'test_0.png')
    lines = []
    for i, name in enumerate(('red', 'blue', 'red')):
        Image.new('RGB', (16, 16), name).save(root / 'val' / 'images' / f'val_{i}.png')
        lines.append(f'val_{i}.png\t{name}\t0\t0\t15\t15')
    (root / 'val' / 'val_annotations.txt').write_text('\n'.join(lines) + '\n')
    read = read_images(root, 16, tmp_path / 'cache')
    assert len(read.train[1]) == 6 and read.test[1].tolist() == [0, 1, 1]
    assert read.test[0][0, 2].min() == 255  # the blue one


def test_what_cannot_be_read_is_one_sentence(photos, tmp_path):
    cache = tmp_path / 'cache'
    with pytest.raises(InputError, match=r'is not there; name the folder .* --data-root'):
        read_images(tmp_path / 'none', 16, cache)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='holds no photos'):
        read_images(tmp_path / 'empty', 16, cache)
    (tmp_path / 'text').write_text('hello')
    with pytest.raises(InputError, match='neither a folder nor a zip or tar archive'):
        read_images(tmp_path / 'text', 16, cache)
    draw_photos(photos / 'photos' / 'more', 1)
    shutil.copytree(photos / 'photos' / 'more' / 'red', photos / 'photos' / 'val' / 'green')
    with pytest.raises(InputError, match='classes green are in the test set alone'):
        read_images(photos / 'photos', 16, cache)
    shutil.rmtree(photos / 'photos' / 'val' / 'green')
    broken = photos / 'photos' / 'val' / 'red' / '000.png'
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(InputError, match=r'the photo val/red/000.png cannot be read'):
        read_images(photos / 'photos', 16, cache)
    assert not list(cache.rglob('about.json'))  # nothing that looks whole


def test_paths_in_archives_lead_nowhere_else(tmp_path):
    """Nothing of an archive is written under its own names."""
    file = draw_photos(tmp_path / 'some', 1) / 'red' / '000.png'
    with tarfile.open(tmp_path / 'bad.tar', 'w') as archive:
        for split in ('train', 'test'):
            archive.add(file, f'{split}/red/../../../../evil.png')
            archive.add(file, f'{split}/red/good.png')
    read_images(tmp_path / 'bad.tar', 16, tmp_path / 'cache')
    with zipfile.ZipFile(tmp_path / 'bad.zip', 'w') as archive:
        for split in ('train', 'test'):
            archive.write(file, f'{split}/red/good.png')
    read_images(tmp_path / 'bad.zip', 16, tmp_path / 'cache')
    assert not list(tmp_path.parent.rglob('evil.png'))
