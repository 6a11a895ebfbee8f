"""Draws single objects, each on a square canvas with an opacity channel."""

from collections.abc import Callable

import cv2
import numpy as np

CANVAS = 192
_CENTER = (CANVAS // 2, CANVAS // 2)
_RADIUS = CANVAS // 2 - 8

# Blue, green, red and opacity; OpenCV smooths edges on 8-bit pictures alone.
Color = tuple[int, int, int, int]


def draw_object(rng: np.random.Generator, name: str) -> np.ndarray:
    """Returns a `(CANVAS, CANVAS, 4)` float32 drawing (BGR and opacity, in [0, 1]).

    Raises:
        KeyError: there is no drawing of this name; `DRAWINGS` has them.
    """
    canvas = np.zeros((CANVAS, CANVAS, 4), np.uint8)
    DRAWINGS[name](rng, canvas)
    return canvas.astype(np.float32) / 255


def _color(rng: np.random.Generator, low: float = 0.1, high: float = 1.0) -> Color:
    return _ink(rng.uniform(low, high, 3))


def _near(rng: np.random.Generator, color: tuple[float, float, float]) -> Color:
    return _ink(np.clip(rng.normal(color, 0.06), 0, 1))


def _ink(color: np.ndarray) -> Color:
    return (*(round(255 * float(c)) for c in color), 255)


def _fill(canvas: np.ndarray, points: np.ndarray, color: Color) -> None:
    cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], color, cv2.LINE_AA)


def _polygon(corners: int, radius: float, turn: float = 0.0) -> np.ndarray:
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + _CENTER


def _sports_ball(rng: np.random.Generator, canvas: np.ndarray) -> None:
    cv2.circle(canvas, _CENTER, _RADIUS, _color(rng, 0.4), -1, cv2.LINE_AA)
    seam = _color(rng, 0.0, 0.3)
    for offset in (-1, 1):
        center = (_CENTER[0] + offset * _RADIUS, _CENTER[1])
        ring = np.zeros_like(canvas)
        cv2.circle(ring, center, int(_RADIUS * 0.75), seam, 6, cv2.LINE_AA)
        inside = (canvas[..., 3] > 127) & (ring[..., 3] > 127)
        canvas[inside] = ring[inside]


def _stop_sign(rng: np.random.Generator, canvas: np.ndarray) -> None:
    white = _near(rng, (0.9, 0.9, 0.9))
    _fill(canvas, _polygon(8, _RADIUS, np.pi / 8), white)
    _fill(canvas, _polygon(8, _RADIUS * 0.88, np.pi / 8), _near(rng, (0.15, 0.1, 0.75)))
    cv2.putText(
        canvas, 'STOP', (_CENTER[0] - 66, _CENTER[1] + 18), cv2.FONT_HERSHEY_SIMPLEX, 1.65,
        white, 7, cv2.LINE_AA,
    )  # fmt: skip


def _kite(rng: np.random.Generator, canvas: np.ndarray) -> None:
    x, y = _CENTER
    top, bottom = (x, y - _RADIUS), (x, y + _RADIUS)
    left, right = (x - 0.62 * _RADIUS, y - 0.25 * _RADIUS), (x + 0.62 * _RADIUS, y - 0.25 * _RADIUS)
    crossing = (x, y - 0.25 * _RADIUS)
    for corners in ((top, left), (left, bottom), (bottom, right), (right, top)):
        _fill(canvas, np.array([*corners, crossing]), _color(rng, 0.2))


def _traffic_light(rng: np.random.Generator, canvas: np.ndarray) -> None:
    x, y = _CENTER
    half = int(_RADIUS * 0.4)
    box = np.array([(x - half, y - _RADIUS), (x + half, y - _RADIUS),
                    (x + half, y + _RADIUS), (x - half, y + _RADIUS)])  # fmt: skip
    _fill(canvas, box, _color(rng, 0.02, 0.15))
    lit = rng.integers(3)
    for i, color in enumerate(((0.1, 0.1, 0.9), (0.1, 0.75, 0.95), (0.2, 0.85, 0.2))):
        shade = color if i == lit else tuple(0.3 * c for c in color)
        cv2.circle(
            canvas, (x, y + int((i - 1) * _RADIUS * 0.62)), int(half * 0.68),
            _near(rng, shade), -1, cv2.LINE_AA,
        )  # fmt: skip


def _clock(rng: np.random.Generator, canvas: np.ndarray) -> None:
    cv2.circle(canvas, _CENTER, _RADIUS, _color(rng, 0.0, 0.35), -1, cv2.LINE_AA)
    cv2.circle(canvas, _CENTER, int(_RADIUS * 0.86), _near(rng, (0.93,) * 3), -1, cv2.LINE_AA)
    ink = (20, 20, 20, 255)
    for hour in range(12):
        ends = [_polygon(12, _RADIUS * r)[hour].round().astype(int).tolist() for r in (0.72, 0.82)]
        cv2.line(canvas, *ends, ink, 4, cv2.LINE_AA)
    for length, thickness in ((0.62, 5), (0.4, 8)):
        angle = rng.uniform(0, 2 * np.pi)
        tip = _polygon(1, _RADIUS * length, angle)[0].round().astype(int).tolist()
        cv2.line(canvas, _CENTER, tip, ink, thickness, cv2.LINE_AA)


def _surfboard(rng: np.random.Generator, canvas: np.ndarray) -> None:
    t = np.linspace(-1, 1, 40)
    half = 0.3 * _RADIUS * (1 - np.abs(t) ** 2.6)
    outline = np.concatenate([
        np.stack([_CENTER[0] + half, _CENTER[1] + t * _RADIUS], 1),
        np.stack([_CENTER[0] - half[::-1], _CENTER[1] + t[::-1] * _RADIUS], 1),
    ])  # fmt: skip
    _fill(canvas, outline, _color(rng, 0.45))
    cv2.line(canvas, (_CENTER[0], 14), (_CENTER[0], CANVAS - 14), _color(rng), 6, cv2.LINE_AA)


# Named as the COCO categories they stand for.
DRAWINGS: dict[str, Callable[[np.random.Generator, np.ndarray], None]] = {
    'sports ball': _sports_ball,
    'stop sign': _stop_sign,
    'kite': _kite,
    'traffic light': _traffic_light,
    'clock': _clock,
    'surfboard': _surfboard,
}
