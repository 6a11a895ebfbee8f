"""Drawings of the COCO categories that the detection demo learns."""

import cv2
import numpy as np

from bnet_mm.demo.ink import (
    CANVAS,
    CENTER,
    RADIUS,
    Drawing,
    fill,
    near_color,
    polygon,
    random_color,
)


def _sports_ball(rng: np.random.Generator, canvas: np.ndarray) -> None:
    cv2.circle(canvas, CENTER, RADIUS, random_color(rng, 0.4), -1, cv2.LINE_AA)
    seam = random_color(rng, 0.0, 0.3)
    for offset in (-1, 1):
        center = (CENTER[0] + offset * RADIUS, CENTER[1])
        ring = np.zeros_like(canvas)
        cv2.circle(ring, center, int(RADIUS * 0.75), seam, 6, cv2.LINE_AA)
        inside = (canvas[..., 3] > 127) & (ring[..., 3] > 127)
        canvas[inside] = ring[inside]


def _stop_sign(rng: np.random.Generator, canvas: np.ndarray) -> None:
    white = near_color(rng, (0.9, 0.9, 0.9))
    fill(canvas, polygon(8, RADIUS, np.pi / 8), white)
    fill(canvas, polygon(8, RADIUS * 0.88, np.pi / 8), near_color(rng, (0.15, 0.1, 0.75)))
    cv2.putText(
        canvas, 'STOP', (CENTER[0] - 66, CENTER[1] + 18), cv2.FONT_HERSHEY_SIMPLEX, 1.65,
        white, 7, cv2.LINE_AA,
    )  # fmt: skip


def _kite(rng: np.random.Generator, canvas: np.ndarray) -> None:
    x, y = CENTER
    top, bottom = (x, y - RADIUS), (x, y + RADIUS)
    left, right = (x - 0.62 * RADIUS, y - 0.25 * RADIUS), (x + 0.62 * RADIUS, y - 0.25 * RADIUS)
    crossing = (x, y - 0.25 * RADIUS)
    for corners in ((top, left), (left, bottom), (bottom, right), (right, top)):
        fill(canvas, np.array([*corners, crossing]), random_color(rng, 0.2))


def _traffic_light(rng: np.random.Generator, canvas: np.ndarray) -> None:
    x, y = CENTER
    half = int(RADIUS * 0.4)
    box = np.array([(x - half, y - RADIUS), (x + half, y - RADIUS),
                    (x + half, y + RADIUS), (x - half, y + RADIUS)])  # fmt: skip
    fill(canvas, box, random_color(rng, 0.02, 0.15))
    lit = rng.integers(3)
    for i, color in enumerate(((0.1, 0.1, 0.9), (0.1, 0.75, 0.95), (0.2, 0.85, 0.2))):
        shade = color if i == lit else tuple(0.3 * c for c in color)
        cv2.circle(
            canvas, (x, y + int((i - 1) * RADIUS * 0.62)), int(half * 0.68),
            near_color(rng, shade), -1, cv2.LINE_AA,
        )  # fmt: skip


def _clock(rng: np.random.Generator, canvas: np.ndarray) -> None:
    cv2.circle(canvas, CENTER, RADIUS, random_color(rng, 0.0, 0.35), -1, cv2.LINE_AA)
    cv2.circle(canvas, CENTER, int(RADIUS * 0.86), near_color(rng, (0.93,) * 3), -1, cv2.LINE_AA)
    ink = (20, 20, 20, 255)
    for hour in range(12):
        ends = [polygon(12, RADIUS * r)[hour].round().astype(int).tolist() for r in (0.72, 0.82)]
        cv2.line(canvas, *ends, ink, 4, cv2.LINE_AA)
    for length, thickness in ((0.62, 5), (0.4, 8)):
        angle = rng.uniform(0, 2 * np.pi)
        tip = polygon(1, RADIUS * length, angle)[0].round().astype(int).tolist()
        cv2.line(canvas, CENTER, tip, ink, thickness, cv2.LINE_AA)


def _surfboard(rng: np.random.Generator, canvas: np.ndarray) -> None:
    t = np.linspace(-1, 1, 40)
    half = 0.3 * RADIUS * (1 - np.abs(t) ** 2.6)
    outline = np.concatenate([
        np.stack([CENTER[0] + half, CENTER[1] + t * RADIUS], 1),
        np.stack([CENTER[0] - half[::-1], CENTER[1] + t[::-1] * RADIUS], 1),
    ])  # fmt: skip
    fill(canvas, outline, random_color(rng, 0.45))
    cv2.line(canvas, (CENTER[0], 14), (CENTER[0], CANVAS - 14), random_color(rng), 6, cv2.LINE_AA)


# Named as the COCO categories they stand for.
DRAWINGS: dict[str, Drawing] = {
    'sports ball': _sports_ball,
    'stop sign': _stop_sign,
    'kite': _kite,
    'traffic light': _traffic_light,
    'clock': _clock,
    'surfboard': _surfboard,
}
