"""Images and videos of any kind become images that can be looked at, or one sentence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from bnet_mm.analysis.images import free_name, images_of, no_longer_than, of_side, of_usual_size
from bnet_mm.errors import InputError
from bnet_mm.text import without_prefix


def png_that_says(width: int, height: int) -> bytes:
    """Returns a few bytes that call themselves an image of that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = (b'IHDR', header), (b'IDAT', zlib.compress(bytes(99))), (b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ('shape', 'dtype', 'shown'),
    [
        ((1, 1, 3), np.uint8, (64, 64)),
        ((1, 5000, 3), np.uint8, (64, 1024)),
        ((3000, 2000), np.uint8, (1024, 683)),
        ((90, 80), np.uint16, (90, 80)),
        ((90, 80, 4), np.uint8, (90, 80)),
    ],
    ids=['one pixel', 'a line', 'large and grey', '16 bits', 'transparent'],
)
def test_any_image_is_read_and_fits(shape, dtype, shown, tmp_path):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    cv2.imwrite(str(tmp_path / 'p.png'), values)
    [(name, image)] = images_of(tmp_path / 'p.png', 3)
    assert name == 'p' and image.shape == (*shape[:2], 3) and image.dtype == np.uint8
    assert no_longer_than(image, 1024).shape == (*shown, 3)
    usual = of_usual_size(image, None).shape
    assert all(side % 32 == 0 and abs(side - s) <= 16 for side, s in zip(usual, shown))
    small = of_side(image, 32)
    assert min(small.shape[:2]) == 32 and max(small.shape[:2]) <= 128


def test_frames_are_spread_over_a_video(demo_ucf101):
    video = next(demo_ucf101.rglob('*.avi'))
    frames = list(images_of(video, 4))
    numbers = [int(without_prefix(name, f'{video.stem}_')) for name, _ in frames]
    assert numbers[0] == 0 and len(set(numbers)) == 4 and numbers == sorted(numbers)
    assert len(list(images_of(video, 10**6))) == numbers[-1] + 1


@pytest.mark.parametrize(
    ('name', 'contents', 'sentence'),
    [
        ('empty.png', b'', 'empty.png cannot be read as an image'),
        ('text.jpg', b'no image', 'text.jpg cannot be read as an image'),
        ('bomb.png', png_that_says(60000, 60000), 'as an image: pixels <= CV_IO_MAX_IMAGE_PIXELS'),
        ('text.mp4', b'no video', 'text.mp4 cannot be read as a video at frame 0'),
    ],
)
def test_what_is_no_image_is_named(name, contents, sentence, tmp_path):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(InputError, match=sentence):
        list(images_of(tmp_path / name, 3))


def test_what_is_not_there_is_named(tmp_path):
    for path in (tmp_path, tmp_path / 'gone.mp4', Path('gone.png')):
        with pytest.raises(InputError, match=r'there is no (image|video)'):
            list(images_of(path, 3))


def test_images_of_one_name_have_sheets_of_their_own():
    used = set()
    found = [free_name(name, used) for name in ('a', 'b', 'a', 'a_2', 'a')]
    assert found == ['a', 'b', 'a_2', 'a_2_2', 'a_3']
