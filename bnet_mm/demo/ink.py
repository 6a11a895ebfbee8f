"""Canvas and ink of the drawings of single objects."""

from collections.abc import Callable

import cv2
import numpy as np

CANVAS = 192
CENTER = (CANVAS // 2, CANVAS // 2)
RADIUS = CANVAS // 2 - 8

# Blue, green, red and opacity; OpenCV smooths edges on 8-bit pictures alone.
Color = tuple[int, int, int, int]
# Draws one object of its kind on an empty `(CANVAS, CANVAS, 4)` uint8 canvas.
Drawing = Callable[[np.random.Generator, np.ndarray], None]


def draw_object(rng: np.random.Generator, kind: Drawing) -> np.ndarray:
    """Returns a `(CANVAS, CANVAS, 4)` float32 drawing (BGR and opacity, in [0, 1])."""
    canvas = np.zeros((CANVAS, CANVAS, 4), np.uint8)
    kind(rng, canvas)
    return canvas.astype(np.float32) / 255


def random_color(rng: np.random.Generator, low: float = 0.1, high: float = 1.0) -> Color:
    """Returns any colour with parts between `low` and `high`, opaque."""
    return _ink(rng.uniform(low, high, 3))


def near_color(rng: np.random.Generator, color: tuple[float, float, float]) -> Color:
    """Returns a colour a little off `color` (BGR in [0, 1]), opaque."""
    return _ink(np.clip(rng.normal(color, 0.06), 0, 1))


def _ink(color: np.ndarray) -> Color:
    return (*(round(255 * float(c)) for c in color), 255)


def fill(canvas: np.ndarray, points: np.ndarray, color: Color) -> None:
    """Fills the polygon of `(N, 2)` points (x, y), with smooth edges."""
    cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], color, cv2.LINE_AA)


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Returns the corners of a rectangle, `(4, 2)`, given in radii from the centre."""
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return corners * RADIUS + CENTER


def polygon(corners: int, radius: float, turn: float = 0.0) -> np.ndarray:
    """Returns the `(corners, 2)` points of a regular polygon around the centre."""
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + CENTER
