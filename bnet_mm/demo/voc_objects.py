"""Drawings of classes of PASCAL VOC, some of which stand in Cityscapes' streets, too."""

import cv2
import numpy as np

from bnet_mm.demo.ink import (
    CENTER,
    RADIUS,
    Color,
    Drawing,
    box,
    fill,
    near_color,
    polygon,
    random_color,
)

GLASS = (0.55, 0.5, 0.42)
RUBBER = (0.1, 0.1, 0.1)


def _at(x: float, y: float) -> tuple[int, int]:
    return round(CENTER[0] + x * RADIUS), round(CENTER[1] + y * RADIUS)


def _disc(canvas: np.ndarray, x: float, y: float, radius: float, color: Color) -> None:
    cv2.circle(canvas, _at(x, y), round(radius * RADIUS), color, -1, cv2.LINE_AA)


def _line(canvas: np.ndarray, start: tuple, end: tuple, width: float, color: Color) -> None:
    cv2.line(canvas, _at(*start), _at(*end), color, round(width * RADIUS), cv2.LINE_AA)


def _wheels(rng: np.random.Generator, canvas: np.ndarray, y: float, radius: float) -> None:
    for x in (-0.55, 0.55):
        _disc(canvas, x, y, radius, near_color(rng, RUBBER))
        _disc(canvas, x, y, 0.45 * radius, near_color(rng, (0.6, 0.6, 0.6)))


def draw_car(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A car from the side."""
    paint = random_color(rng, 0.15)
    roof = np.array([(-0.5, -0.1), (-0.3, -0.45), (0.28, -0.45), (0.58, -0.1)])
    fill(canvas, roof * RADIUS + CENTER, paint)
    fill(canvas, box(-0.98, -0.12, 0.98, 0.3), paint)
    glass = near_color(rng, GLASS)
    for left, right in ((-0.38, -0.04), (0.04, 0.4)):
        window = np.array(
            [(left, -0.12), (left + 0.1, -0.37), (right - 0.14, -0.37), (right, -0.12)]
        )
        fill(canvas, window * RADIUS + CENTER, glass)
    _wheels(rng, canvas, 0.3, 0.2)


def draw_bus(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A bus from the side."""
    paint = random_color(rng, 0.25)
    fill(canvas, box(-0.98, -0.55, 0.98, 0.4), paint)
    glass = near_color(rng, GLASS)
    for left in np.linspace(-0.9, 0.55, 5):
        fill(canvas, box(left, -0.42, left + 0.29, -0.02), glass)
    fill(canvas, box(-0.98, 0.1, 0.98, 0.17), random_color(rng))
    _wheels(rng, canvas, 0.42, 0.17)


def draw_person(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """A person walking."""
    skin = near_color(rng, [(0.55, 0.68, 0.88), (0.3, 0.4, 0.55)][rng.integers(2)])
    shirt, trousers = random_color(rng), random_color(rng, 0.05, 0.5)
    stride = rng.uniform(0.05, 0.25)
    for side in (-1, 1):
        _line(canvas, (0, 0.15), (side * stride, 0.95), 0.16, trousers)
        _line(canvas, (0, -0.4), (-side * (stride + 0.12), 0.1), 0.11, skin)
    fill(canvas, box(-0.2, -0.5, 0.2, 0.2), shirt)
    _disc(canvas, 0, -0.75, 0.19, skin)


def _bottle(rng: np.random.Generator, canvas: np.ndarray) -> None:
    glass = random_color(rng, 0.1, 0.7)
    fill(canvas, box(-0.27, -0.25, 0.27, 0.98), glass)
    shoulder = np.array([(-0.27, -0.25), (-0.1, -0.5), (0.1, -0.5), (0.27, -0.25)])
    fill(canvas, shoulder * RADIUS + CENTER, glass)
    fill(canvas, box(-0.1, -0.9, 0.1, -0.45), glass)
    fill(canvas, box(-0.13, -0.98, 0.13, -0.85), random_color(rng))
    fill(canvas, box(-0.27, 0.1, 0.27, 0.6), near_color(rng, (0.9, 0.9, 0.9)))


def _tvmonitor(rng: np.random.Generator, canvas: np.ndarray) -> None:
    frame = random_color(rng, 0.02, 0.3)
    fill(canvas, box(-0.95, -0.7, 0.95, 0.5), frame)
    fill(canvas, box(-0.85, -0.6, 0.85, 0.4), random_color(rng, 0.2, 0.9))
    fill(canvas, box(-0.1, 0.5, 0.1, 0.75), frame)
    fill(canvas, box(-0.4, 0.72, 0.4, 0.82), frame)


def _boat(rng: np.random.Generator, canvas: np.ndarray) -> None:
    hull = np.array([(-0.95, 0.4), (0.95, 0.4), (0.6, 0.85), (-0.7, 0.85)])
    fill(canvas, hull * RADIUS + CENTER, random_color(rng, 0.1, 0.7))
    _line(canvas, (0, 0.4), (0, -0.95), 0.05, near_color(rng, (0.2, 0.35, 0.5)))
    for tip in (-0.65, 0.75):
        sail = np.array([(0.05 * np.sign(tip), -0.9), (tip, 0.3), (0.05 * np.sign(tip), 0.3)])
        fill(canvas, sail * RADIUS + CENTER, near_color(rng, (0.9, 0.92, 0.95)))


def _pottedplant(rng: np.random.Generator, canvas: np.ndarray) -> None:
    for angle in rng.uniform(-2.6, -0.5, 9):
        tip = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.6, 0.95)
        side = np.array([-tip[1], tip[0]]) * 0.2
        leaf = np.array([(0, 0), tip * 0.5 + side, tip, tip * 0.5 - side]) + (0, 0.2)
        fill(canvas, leaf * RADIUS + CENTER, near_color(rng, (0.2, 0.55, 0.2)))
    pot = np.array([(-0.42, 0.25), (0.42, 0.25), (0.3, 0.97), (-0.3, 0.97)])
    fill(canvas, pot * RADIUS + CENTER, near_color(rng, (0.2, 0.35, 0.65)))


def _bird(rng: np.random.Generator, canvas: np.ndarray) -> None:
    body, wing = random_color(rng, 0.2, 0.9), random_color(rng, 0.1, 0.6)
    cv2.ellipse(canvas, CENTER, (int(0.55 * RADIUS), int(0.36 * RADIUS)), 0, 0, 360, body, -1,
                cv2.LINE_AA)  # fmt: skip
    _disc(canvas, 0.55, -0.3, 0.24, body)
    beak = np.array([(0.74, -0.38), (0.98, -0.26), (0.74, -0.2)])
    fill(canvas, beak * RADIUS + CENTER, near_color(rng, (0.1, 0.6, 0.9)))
    fill(canvas, polygon(3, 0.38 * RADIUS, 0.5) - (0.12 * RADIUS, 0), wing)
    tail = np.array([(-0.45, -0.1), (-0.98, -0.3), (-0.98, 0.15), (-0.45, 0.15)])
    fill(canvas, tail * RADIUS + CENTER, wing)
    _disc(canvas, 0.6, -0.36, 0.045, (15, 15, 15, 255))


# Named as the VOC classes they stand for.
DRAWINGS: dict[str, Drawing] = {
    'bird': _bird,
    'boat': _boat,
    'bottle': _bottle,
    'bus': draw_bus,
    'car': draw_car,
    'person': draw_person,
    'pottedplant': _pottedplant,
    'tvmonitor': _tvmonitor,
}
