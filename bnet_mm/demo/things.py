"""A table of things to draw, each a few polygons and lines, and the brush that paints them."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import cv2
import numpy as np


class Stroke(NamedTuple):
    """A filled polygon, or a line where `width` is given.

    Attributes:
        color: a key of `COLORS`.
        points: `(N, 2)` corners (x, y), y downwards; a thing reaches from -1 to 1.
        width: thickness of a line.
        spin: the largest angle, in radians, by which it may be turned about its first point.
    """

    color: str
    points: np.ndarray
    width: float = 0.0
    spin: float = 0.0


Thing = Sequence[Stroke]

# The range of each colour, blue, green and red in [0, 1]. 'paint' and its kin may be any.
COLORS: dict[str, tuple] = {
    **dict.fromkeys(('paint', 'paint2', 'paint3', 'paint4', 'shirt', 'sign'), (0.25, 1.0)),
    'dark': (0.0, 0.3),
    'trousers': (0.05, 0.5),
    'wall': (0.25, 0.75),
    **{
        name: (np.clip(np.subtract(color, 0.05), 0, 1), np.clip(np.add(color, 0.05), 0, 1))
        for name, color in {
            'white': (0.92, 0.92, 0.92), 'black': (0.05, 0.05, 0.05), 'gray': (0.6, 0.6, 0.6),
            'red': (0.15, 0.1, 0.75), 'orange': (0.1, 0.6, 0.9), 'clay': (0.2, 0.35, 0.65),
            'wood': (0.15, 0.25, 0.35), 'leaf': (0.2, 0.48, 0.2), 'grass': (0.2, 0.45, 0.35),
            'glass': (0.5, 0.45, 0.38), 'sky': (0.88, 0.75, 0.65), 'asphalt': (0.33, 0.33, 0.33),
            'paving': (0.48, 0.48, 0.5), 'skin': (0.45, 0.56, 0.74),
        }.items()
    },
}  # fmt: skip
LAMPS = {'stop': (0.1, 0.1, 0.9), 'wait': (0.1, 0.75, 0.95), 'go': (0.2, 0.85, 0.2)}


def fill(color: str, *points: tuple, spin: float = 0.0) -> Stroke:
    """Returns a filled polygon."""
    return Stroke(color, np.array(points, float), spin=spin)


def line(color: str, width: float, *points: tuple, spin: float = 0.0) -> Stroke:
    """Returns a line through points."""
    return Stroke(color, np.array(points, float), width, spin)


def box(color: str, left: float, top: float, right: float, bottom: float) -> Stroke:
    """Returns a rectangle."""
    return fill(color, (left, top), (right, top), (right, bottom), (left, bottom))


def circle(count: int, start: float = 0.0, end: float = 2 * np.pi) -> np.ndarray:
    """Returns `(count, 2)` points of the unit circle from an angle on, without the end."""
    angles = np.linspace(start, end, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def disc(color: str, x: float, y: float, radius: float) -> Stroke:
    """Returns a disc."""
    return Stroke(color, circle(40) * radius + (x, y))


def octagon(color: str, radius: float) -> Stroke:
    """Returns the shape of a stop sign."""
    return Stroke(color, circle(8, np.pi / 8, 17 * np.pi / 8) * radius)


def pose(rng: np.random.Generator, thing: Thing) -> Thing:
    """Returns the thing with each stroke turned as far as it may be."""
    turned = []
    for stroke in thing:
        angle = rng.uniform(-stroke.spin, stroke.spin)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        pivot = stroke.points[0]
        turned.append(stroke._replace(points=(stroke.points - pivot) @ turn.T + pivot))
    return turned


def pick_colors(rng: np.random.Generator) -> dict[str, tuple]:
    """Returns a colour for each key of `COLORS` and `LAMPS`, one lamp lit: BGR and opacity."""
    colors = {name: rng.uniform(*bounds, 3) for name, bounds in COLORS.items()}
    lit = rng.choice(list(LAMPS))
    for name, color in LAMPS.items():
        colors[name] = np.multiply(color, 1.0 if name == lit else 0.3)
    return {name: (*np.round(255 * color).tolist(), 255) for name, color in colors.items()}


def paint(
    image: np.ndarray,
    thing: Thing,
    color: dict[str, tuple] | int,
    scale: float | np.ndarray,
    origin: Sequence[float] | np.ndarray,
) -> None:
    """Paints a thing into an image.

    Args:
        image: `(H, W)` or `(H, W, channels)`, written into.
        thing: what to paint, the farthest stroke first.
        color: the colour of each key, with smooth edges, or a label, with hard ones.
        scale: pixels for a length of 1, or a `(2, 2)` matrix.
        origin: the pixel (x, y) of the point (0, 0).
    """
    matrix = scale * np.eye(2) if np.isscalar(scale) else scale
    size = np.sqrt(abs(np.linalg.det(matrix)))
    for stroke in thing:
        # OpenCV's `shift` of 4: coordinates in sixteenths of a pixel.
        points = [np.round(16 * (stroke.points @ matrix.T + origin)).astype(np.int32)]
        how = (color, cv2.LINE_8) if isinstance(color, int) else (color[stroke.color], cv2.LINE_AA)
        if stroke.width:
            width = max(1, round(stroke.width * size))
            cv2.polylines(image, points, False, how[0], width, how[1], 4)
        else:
            cv2.fillPoly(image, points, *how, 4)


WHEELS = [
    disc(color, x, 0.34, r) for x in (-0.55, 0.55) for color, r in (('black', 0.19), ('gray', 0.08))
]
_T = np.linspace(-1, 1, 40)
_BOARD = np.stack([0.3 * (1 - np.abs(_T) ** 2.6), _T], 1)
_STOP = (  # the letters
    ((0.26, 0), (0, 0), (0, 0.5), (0.26, 0.5), (0.26, 1), (0, 1)),
    ((0, 0), (0.28, 0), (0.14, 0), (0.14, 1)),
    ((0, 0), (0.28, 0), (0.28, 1), (0, 1), (0, 0)),
    ((0, 1), (0, 0), (0.27, 0), (0.27, 0.5), (0, 0.5)),
)

# Named as the classes of COCO, VOC or Cityscapes that they stand for.
THINGS: dict[str, Thing] = {
    'sports ball': [
        disc('paint', 0, 0, 1),
        *(line('dark', 0.07, *(circle(20, -1.18, 1.18) * (side * 0.75, 0.75) - (side, 0)))
          for side in (-1, 1)),
    ],
    'stop sign': [
        octagon('white', 1), octagon('red', 0.88),
        *(line('white', 0.07, *((x + left, 0.42 * y - 0.21) for x, y in letter))
          for left, letter in zip((-0.7, -0.34, 0.05, 0.45), _STOP)),
    ],
    'kite': [
        fill(color, start, end, (0, -0.25))
        for color, start, end in (
            ('paint', (0, -1), (-0.62, -0.25)), ('paint2', (-0.62, -0.25), (0, 1)),
            ('paint3', (0, 1), (0.62, -0.25)), ('paint4', (0.62, -0.25), (0, -1)),
        )
    ],
    'traffic light': [
        box('black', -0.4, -1, 0.4, 1),
        disc('stop', 0, -0.62, 0.27), disc('wait', 0, 0, 0.27), disc('go', 0, 0.62, 0.27),
    ],
    'clock': [
        disc('dark', 0, 0, 1), disc('white', 0, 0, 0.86),
        *(line('black', 0.045, (0.72 * x, 0.72 * y), (0.82 * x, 0.82 * y))
          for x, y in circle(12)),
        line('black', 0.055, (0, 0), (0.62, 0), spin=np.pi),
        line('black', 0.09, (0, 0), (0.4, 0), spin=np.pi),
    ],
    'surfboard': [
        fill('paint', *_BOARD, *(_BOARD * (-1, 1))[::-1]),
        line('paint2', 0.07, (0, -0.94), (0, 0.94)),
    ],
    'car': [
        fill('paint', (-0.5, -0.1), (-0.3, -0.45), (0.28, -0.45), (0.58, -0.1)),
        box('paint', -0.98, -0.12, 0.98, 0.3),
        fill('glass', (-0.38, -0.12), (-0.28, -0.37), (-0.18, -0.37), (-0.04, -0.12)),
        fill('glass', (0.04, -0.12), (0.04, -0.37), (0.26, -0.37), (0.4, -0.12)),
        *WHEELS,
    ],
    'bus': [
        box('paint', -0.98, -0.6, 0.98, 0.34),
        *(box('glass', left, -0.45, left + 0.29, -0.05) for left in np.linspace(-0.9, 0.55, 5)),
        box('paint2', -0.98, 0.05, 0.98, 0.12), *WHEELS,
    ],
    'person': [
        line('trousers', 0.16, (-0.06, 0.15), (-0.16, 0.92), spin=0.15),
        line('trousers', 0.16, (0.06, 0.15), (0.16, 0.92), spin=0.15),
        line('skin', 0.11, (-0.1, -0.42), (-0.32, 0.1), spin=0.3),
        line('skin', 0.11, (0.1, -0.42), (0.32, 0.1), spin=0.3),
        box('shirt', -0.2, -0.5, 0.2, 0.2), disc('skin', 0, -0.75, 0.19),
    ],
    'bottle': [
        box('paint', -0.27, -0.25, 0.27, 0.98),
        fill('paint', (-0.27, -0.25), (-0.1, -0.5), (0.1, -0.5), (0.27, -0.25)),
        box('paint', -0.1, -0.9, 0.1, -0.45), box('paint2', -0.13, -0.98, 0.13, -0.85),
        box('white', -0.27, 0.1, 0.27, 0.6),
    ],
    'tvmonitor': [
        box('dark', -0.95, -0.7, 0.95, 0.5), box('paint', -0.85, -0.6, 0.85, 0.4),
        box('dark', -0.1, 0.5, 0.1, 0.75), box('dark', -0.4, 0.72, 0.4, 0.82),
    ],
    'boat': [
        fill('paint', (-0.95, 0.4), (0.95, 0.4), (0.6, 0.85), (-0.7, 0.85)),
        line('wood', 0.05, (0, 0.4), (0, -0.95)),
        fill('white', (-0.05, -0.9), (-0.65, 0.3), (-0.05, 0.3)),
        fill('white', (0.05, -0.9), (0.75, 0.3), (0.05, 0.3)),
    ],
    'pottedplant': [
        *(fill('leaf', (0, 0.3), (0.4 * x - 0.16 * y, 0.4 * y + 0.16 * x + 0.2),
               (0.9 * x, 0.9 * y + 0.2), (0.4 * x + 0.16 * y, 0.4 * y - 0.16 * x + 0.2), spin=0.2)
          for x, y in circle(7, 1.07 * np.pi, 2.07 * np.pi)),
        fill('clay', (-0.42, 0.25), (0.42, 0.25), (0.3, 0.97), (-0.3, 0.97)),
    ],
    'bird': [
        fill('paint', *circle(40) * (0.55, 0.36)), disc('paint', 0.55, -0.3, 0.24),
        fill('orange', (0.74, -0.38), (0.98, -0.26), (0.74, -0.2)),
        fill('paint2', (0.2, 0.1), (-0.2, 0.3), (-0.5, -0.25), spin=0.15),
        fill('paint2', (-0.45, -0.1), (-0.98, -0.3), (-0.98, 0.15), (-0.45, 0.15)),
        disc('black', 0.6, -0.36, 0.045),
    ],
    'vegetation': [
        line('wood', 0.14, (0, 0), (0, 1)),
        *(disc('leaf', x, y, r)._replace(spin=0.5)
          for x, y, r in ((-0.3, 0, 0.45), (0.3, 0.05, 0.4), (0, -0.35, 0.5), (0.05, 0.1, 0.4))),
    ],
}  # fmt: skip
