"""Draws short clips of a person doing something."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bnet_mm.demo.texture import background, camera
from bnet_mm.demo.things import Stroke, Thing, circle, disc, line, paint, pick_colors


def draw_clip(
    rng: np.random.Generator, action: str, frames: int, height: int, width: int
) -> Iterator[np.ndarray]:
    """Yields the frames of an action of `ACTIONS`, each `(height, width, 3)` uint8 BGR."""
    place = np.clip(255 * background(rng, height, width), 0, 255).astype(np.uint8)
    colors = pick_colors(rng)
    size = height * rng.uniform(0.45, 0.7)
    hip = np.array([width * rng.uniform(0.3, 0.7), height * rng.uniform(0.52, 0.6)])
    drift = rng.normal(0, 0.3, 2)
    turn, pace = 2 * np.pi * rng.random(), 2 * np.pi * rng.uniform(0.02, 0.045)
    for frame in range(frames):
        image = place.copy()
        thing = ACTIONS[action](turn + pace * frame)
        paint(image, thing, colors, size, hip + drift * frame)
        yield camera(rng, image / 255)


def _body(arms: list, legs: list, hip: tuple[float, float] = (0, 0)) -> Thing:
    """Returns a person of height 1; a limb is the angles of its two parts from straight down."""
    x, y = hip
    neck = (x, y - 0.33)

    def limb(color: str, width: float, start: tuple, part: float, angles: tuple) -> Stroke:
        steps = [(part * np.sin(angle), part * np.cos(angle)) for angle in angles]
        return line(color, width, *np.cumsum([start, *steps], axis=0))

    return [
        *(limb('trousers', 0.07, hip, 0.24, angles) for angles in legs),
        line('shirt', 0.13, hip, neck),
        *(limb('skin', 0.05, neck, 0.18, angles) for angles in arms),
        disc('skin', x, y - 0.45, 0.09),
    ]


def _jumping_jack(turn: float) -> Thing:
    spread = 0.5 - 0.5 * np.cos(turn)
    arm, leg = 0.2 + 2.5 * spread, 0.05 + 0.55 * spread
    up = (0, -0.06 * abs(np.sin(turn)))
    return _body([(arm, arm), (-arm, -arm)], [(leg, leg), (-leg, -leg)], up)


def _hula_hoop(turn: float) -> Thing:
    center = (0.09 * np.cos(turn), 0.03 * np.sin(turn))
    tilt = np.array([[1, 0.14 * np.sin(turn)], [0, 1]])
    near, far = (
        line('paint', 0.03, *(circle(20, 0, np.pi * 1.05) * (0.42, side * 0.1) @ tilt + center))
        for side in (1, -1)
    )
    sway = (0.05 * np.cos(turn + 1), 0)
    body = _body([(1.6, 2.6), (-1.6, -2.6)], [(0.12, 0.0), (-0.12, 0.0)], sway)
    return [far, *body, near]


def _juggling(turn: float) -> Thing:
    lift = 0.25 * np.sin(2 * turn)
    balls = []
    for i, color in enumerate(('red', 'orange', 'paint')):
        t = 2 * ((turn / (2 * np.pi) + i / 3) % 1) - 1
        balls.append(disc(color, 0.28 * np.sin(np.pi * t), -0.25 - 0.55 * (1 - t * t), 0.05))
    arms = [(0.35, 1.5 + lift), (-0.35, -1.5 + lift)]
    return [*_body(arms, [(0.1, 0.05), (-0.1, -0.05)]), *balls]


def _swing(turn: float) -> Thing:
    angle = 0.7 * np.sin(turn)
    x, y = seat = (0.75 * np.sin(angle), 0.75 * np.cos(angle) - 0.75)
    frame = [line('wood', 0.05, (side * 0.3, -0.75), (side * 0.7, 0.45)) for side in (-1, 1)]
    ropes = [line('white', 0.015, (dx, -0.75), (x + dx, y)) for dx in (-0.03, 0.03)]
    shin = 0.6 + 0.5 * np.sin(turn)
    body = _body([(2.2, 2.9), (2.4, 3.0)], [(1.4, shin), (1.3, shin)], seat)
    return [*frame, line('wood', 0.06, (-0.5, -0.75), (0.5, -0.75)), *ropes, *body]


# Named as the UCF-101 classes they stand for: the person about the hip, in the person's heights,
# at an angle of the movement.
ACTIONS: dict[str, Callable[[float], Thing]] = {
    'HulaHoop': _hula_hoop,
    'JugglingBalls': _juggling,
    'JumpingJack': _jumping_jack,
    'Swing': _swing,
}
