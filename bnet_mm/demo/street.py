"""Draws a street as a car's camera sees it, with the class and the instance of each pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Tuple

import numpy as np

from bnet_mm.demo.texture import camera, clouds, light
from bnet_mm.demo.things import (
    THINGS,
    Thing,
    box,
    circle,
    fill,
    line,
    octagon,
    paint,
    pick_colors,
    pose,
)

# Cityscapes' ids of the classes that are drawn.
IDS = {
    'ego vehicle': 1, 'road': 7, 'sidewalk': 8, 'building': 11, 'pole': 17, 'traffic light': 19,
    'traffic sign': 20, 'vegetation': 21, 'terrain': 22, 'sky': 23, 'person': 24, 'car': 26,
    'bus': 28,
}  # fmt: skip
# Classes with instances: their height at the bottom edge and their range of distances from the
# middle, both in image heights.
COUNTED = {'person': (0.36, (1.0, 1.7)), 'car': (0.33, (0.1, 1.0)), 'bus': (0.63, (0.1, 1.0))}

BONNET = [fill('dark', *circle(40) * (1.2, 0.07))]
SIGN = [octagon('white', 1), octagon('sign', 0.8)]

# Its class, its strokes, pixels for a length of 1, and the pixel of its point (0, 0).
Layer = Tuple[str, Thing, float, np.ndarray]


def draw_street(
    rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a `(height, width, 3)` uint8 BGR image, its uint8 ids and its uint16 instances.

    An instance is 1000 * id + number for persons, cars and buses, and the id for all else.
    """
    image = np.zeros((height, width, 3), np.uint8)
    instances = np.zeros((height, width), np.uint16)
    numbers = dict.fromkeys(COUNTED, 0)
    horizon = rng.uniform(0.36, 0.46)
    vanishing = np.array([width * rng.uniform(0.42, 0.58), height * horizon])
    for name, thing, scale, origin in [
        *((name, thing, height, vanishing) for name, thing in _backdrop(rng, 1 - horizon)),
        *_roadside(rng, height, vanishing),
        *_traffic(rng, height, vanishing),
        ('ego vehicle', BONNET, height, np.array([width / 2, height])),
    ]:
        paint(image, thing, pick_colors(rng), scale, origin)
        label = IDS[name]
        if name in COUNTED:
            label = 1000 * label + numbers[name]
            numbers[name] += 1
        paint(instances, thing, label, scale, origin)
    ids = np.where(instances >= 1000, instances // 1000, instances).astype(np.uint8)
    grain = np.where(ids == IDS['vegetation'], 0.9, 0.3) * (clouds(rng, height, width, 7) - 0.5)
    lit = image / 255 * ((1 + grain) * light(rng, height, width))[..., None]
    return camera(rng, lit), ids, instances


def _backdrop(rng: np.random.Generator, ground: float) -> Iterator[tuple[str, Thing]]:
    """Yields sky, houses and ground as strokes in image heights from the vanishing point."""
    yield 'sky', [box('sky', -3, -3, 3, 3)]
    left = -1.3
    while left < 1.3:
        right = left + rng.uniform(0.15, 0.4)
        # Lower towards the middle, where the street runs away.
        top = -rng.uniform(0.1, 0.4) * min(1, 0.25 + abs(left + right) / 2)
        step = (right - left) / rng.integers(3, 6)
        windows = [
            box('glass', x, y, x + 0.5 * step, y + 0.6 * step)
            for x in np.arange(left + 0.25 * step, right - 0.6 * step, step)
            for y in np.arange(top + 0.3 * step, -0.5 * step, step)
        ]
        yield 'building', [box('wall', left, top, right, 0.1), *windows]
        left = right
    yield 'terrain', [box('grass', -3, 0.02, 3, 3)]
    half, side = rng.uniform(0.9, 1.5), rng.uniform(0.3, 0.8)
    for name, color, reach in (('sidewalk', 'paving', half + side), ('road', 'asphalt', half)):
        tip = 0.012 * reach  # so that the far end is some pixels wide
        yield name, [fill(color, (-tip, 0), (tip, 0), (reach, ground), (-reach, ground))]
    for lane in (-0.33 * half, 0.33 * half):
        for near, far in ((1.0, 0.8), (0.66, 0.52), (0.42, 0.33), (0.26, 0.2)):
            ends = ((near * lane, near * ground), (far * lane, far * ground))
            yield 'road', [line('white', 0.02 * near, *ends)]


def _foot(vanishing: np.ndarray, height: int, side: float, depth: float) -> np.ndarray:
    """Returns the pixel on the ground that is `side` image heights off the middle.

    A `depth` of 1 is the bottom edge, where `side` is measured, and 0 the vanishing point.
    """
    bottom = np.array([vanishing[0] + side * height, height])
    return vanishing + depth * (bottom - vanishing)


def _roadside(rng: np.random.Generator, height: int, vanishing: np.ndarray) -> Iterator[Layer]:
    """Yields trees, and poles with a traffic light or a sign, from far to near."""
    for depth in sorted(rng.uniform(0.15, 0.7, rng.integers(3, 9))):
        side = rng.choice([-1, 1]) * rng.uniform(1.25, 1.7)
        size = 0.38 * height * depth
        top = _foot(vanishing, height, side, depth) - (0, 2 * size)
        if rng.random() < 0.45:
            tree = pose(rng, THINGS['vegetation'])
            yield 'vegetation', tree, 1.2 * size, top + (0, 0.8 * size)
            continue
        yield 'pole', [line('gray', 0.08, (0, 0), (0, 2))], size, top
        if rng.random() < 0.5:
            yield 'traffic light', THINGS['traffic light'], 0.3 * size, top
        else:
            yield 'traffic sign', SIGN, 0.22 * size, top


def _traffic(rng: np.random.Generator, height: int, vanishing: np.ndarray) -> Iterator[Layer]:
    """Yields persons, cars and buses, from far to near."""
    for depth in sorted(rng.uniform(0.12, 0.75, rng.integers(3, 9))):
        name = str(rng.choice(list(COUNTED), p=[0.4, 0.48, 0.12]))
        tall, reach = COUNTED[name]
        foot = _foot(vanishing, height, rng.choice([-1, 1]) * rng.uniform(*reach), depth)
        thing = pose(rng, THINGS[name])
        ys = np.concatenate([stroke.points[:, 1] for stroke in thing])
        scale = tall * height * depth / np.ptp(ys)
        yield name, thing, scale, foot - (0, scale * ys.max())
