"""Reads the images and video frames that analyses run on, and resizes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from bnet_mm.errors import InputError
from bnet_mm.openmmlab.pictures import read_image, resized

VIDEOS = {'.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv'}
LONGEST, SHORTEST = 1024, 64  # pixels of an image's sides
STRIDE = 32


def images_of(path: Path, frames: int, channels: int = 3) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and `(H, W, channels)` of an image, or of a video's frames; colours are BGR.

    Args:
        path: an image in any format that OpenCV reads, grey ones too, or a video.
        frames: how many of a video, evenly spread.
        channels: of the network's images, see `read_image`.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix.lower() not in VIDEOS:
        yield path.stem, read_image(path, channels)
        return
    if not path.is_file():
        raise InputError(f'there is no video {path}')
    if channels != 3:
        raise InputError(f'{path} has frames of colours, and the network takes {channels} channels')
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    try:
        for index in np.linspace(0, max(count - 1, 0), min(frames, max(count, 1))).astype(int):
            video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
            read, image = video.read()
            if not read:
                raise InputError(f'{path} cannot be read as a video at frame {index}')
            yield f'{path.stem}_{index:05d}', image
    finally:
        video.release()


def free_name(name: str, used: set[str]) -> str:
    """Returns a name that is not in `used` yet, and puts it there: two folders may have a 1.jpg."""
    free, number = name, 1
    while free in used:
        number += 1
        free = f'{name}_{number}'
    used.add(free)
    return free


def of_usual_size(image: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    """Returns an image of `shape` (height, width), or of its own within bounds.

    Its own is rounded to multiples of 32: networks that merge their maps, as YOLOX or U-Nets do,
    take no other, and positions of maps then lie on whole pixels.
    """
    if shape is None:
        return no_longer_than(image, LONGEST, STRIDE)
    return resized(image, shape)


def no_longer_than(image: np.ndarray, longest: int, multiple: int = 1) -> np.ndarray:
    """Returns an image of at most `longest` pixels on the longer side, at least 64 on any.

    Args:
        image: `(H, W, 3)` bytes.
        longest: pixels.
        multiple: what the sides are rounded to multiples of.
    """
    height, width = image.shape[:2]
    scale = min(longest / max(height, width), 1.0)
    sides = (multiple * round(side * scale / multiple) for side in (height, width))
    return of_usual_size(image, tuple(max(side, SHORTEST) for side in sides))


def tested_side(cfg: Config) -> int | None:
    """Returns to how many pixels a test pipeline resizes an image's shorter side.

    None where it names no such side, and for detectors and segmentors, which take images of any.
    """
    if cfg.get('default_scope') not in ('mmpretrain', 'mmaction'):
        return None
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    for step in dataset.get('pipeline') or []:
        if str(step.get('type')).rpartition('.')[2] in ('ResizeEdge', 'Resize', 'Scale'):
            scale = step.get('scale')
            sides = scale if isinstance(scale, (tuple, list)) else [scale]
            return min((s for s in sides if isinstance(s, int) and s > 0), default=None)
    return None


def of_side(image: np.ndarray, side: int) -> np.ndarray:
    """Returns an image with a shorter side of `side` pixels and a longer of four times at most."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    longest = 4 * side
    shape = tuple(min(max(round(s * scale), side), longest) for s in (height, width))
    return of_usual_size(image, shape)
