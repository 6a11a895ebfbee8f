"""Draws short clips of a person doing something."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from bnet_mm.demo.texture import background, camera


@dataclass
class Person:
    """A stick person's look: `size` in pixels from head to foot, colours BGR in [0, 1]."""

    size: float
    skin: tuple[float, ...]
    shirt: tuple[float, ...]
    trousers: tuple[float, ...]


# Draws an action on a `(H, W, 3)` float32 picture: the person, where the hip is (x, y) and the
# phase of the movement in turns.
Action = Callable[[np.ndarray, Person, np.ndarray, float], None]


def draw_clip(
    rng: np.random.Generator, action: Action, frames: int, height: int, width: int
) -> Iterator[np.ndarray]:
    """Yields `frames` pictures, each `(height, width, 3)` uint8 BGR, of an action that goes on."""
    place = background(rng, height, width)
    person = Person(
        size=height * rng.uniform(0.45, 0.7),
        skin=tuple(rng.uniform((0.3, 0.4, 0.55), (0.6, 0.7, 0.9))),
        shirt=tuple(rng.uniform(0.1, 1, 3)),
        trousers=tuple(rng.uniform(0.05, 0.5, 3)),
    )
    hip = np.array([width * rng.uniform(0.3, 0.7), height * rng.uniform(0.52, 0.6)])
    drift = rng.normal(0, 0.3, 2)
    phase, pace = rng.random(), rng.uniform(0.02, 0.045)
    grain = np.random.default_rng(rng.integers(2**32))
    for frame in range(frames):
        picture = place.copy()
        action(picture, person, hip + drift * frame, phase + pace * frame)
        yield camera(grain, picture)


def _limb(picture: np.ndarray, points: list, width: float, color: tuple[float, ...]) -> None:
    points = np.round(np.array(points)).astype(np.int32)
    cv2.polylines(picture, [points], False, color, max(1, round(width)), cv2.LINE_AA)


def _body(picture: np.ndarray, who: Person, hip: np.ndarray, arms: list, legs: list) -> None:
    """Draws a person; a limb is the angles of its two parts, in radians from straight down."""
    s = who.size
    neck = hip - (0, 0.33 * s)
    for angles in legs:
        knee = hip + 0.24 * s * _direction(angles[0])
        _limb(picture, [hip, knee, knee + 0.24 * s * _direction(angles[1])], 0.07 * s, who.trousers)
    _limb(picture, [hip, neck], 0.13 * s, who.shirt)
    for angles in arms:
        elbow = neck + 0.18 * s * _direction(angles[0])
        _limb(picture, [neck, elbow, elbow + 0.18 * s * _direction(angles[1])], 0.05 * s, who.skin)
    head = np.round(neck - (0, 0.12 * s)).astype(int)
    cv2.circle(picture, head.tolist(), round(0.09 * s), who.skin, -1, cv2.LINE_AA)


def _direction(angle: float) -> np.ndarray:
    return np.array([np.sin(angle), np.cos(angle)])


def _ball(picture: np.ndarray, at: np.ndarray, radius: float, color: tuple[float, ...]) -> None:
    center = np.round(at).astype(int).tolist()
    cv2.circle(picture, center, max(2, round(radius)), color, -1, cv2.LINE_AA)


def _jumping_jack(picture: np.ndarray, who: Person, hip: np.ndarray, phase: float) -> None:
    spread = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    arm, leg = 0.2 + 2.5 * spread, 0.05 + 0.55 * spread
    hip = hip - (0, 0.06 * who.size * abs(np.sin(2 * np.pi * phase)))
    _body(picture, who, hip, [(arm, arm), (-arm, -arm)], [(leg, leg), (-leg, -leg)])


def _hula_hoop(picture: np.ndarray, who: Person, hip: np.ndarray, phase: float) -> None:
    turn = 2 * np.pi * phase
    center = hip + 0.09 * who.size * np.array([np.cos(turn), 0.3 * np.sin(turn)])
    axes = (round(0.42 * who.size), round(0.1 * who.size))
    place, tilt = np.round(center).astype(int).tolist(), 8 * np.sin(turn)
    hoop = (who.shirt[2], who.shirt[0], who.shirt[1])
    # The far half of the hoop is behind the person.
    cv2.ellipse(picture, place, axes, tilt, 180, 360, hoop, 4, cv2.LINE_AA)
    sway = hip + (0.05 * who.size * np.cos(turn + 1), 0)
    _body(picture, who, sway, [(1.6, 2.6), (-1.6, -2.6)], [(0.12, 0.0), (-0.12, 0.0)])
    cv2.ellipse(picture, place, axes, tilt, 0, 180, hoop, 4, cv2.LINE_AA)


def _juggling(picture: np.ndarray, who: Person, hip: np.ndarray, phase: float) -> None:
    lift = 0.25 * np.sin(4 * np.pi * phase)
    _body(
        picture, who, hip, [(0.35, 1.5 + lift), (-0.35, -1.5 + lift)], [(0.1, 0.05), (-0.1, -0.05)]
    )
    colors = ((0.15, 0.15, 0.9), (0.15, 0.8, 0.9), (0.85, 0.4, 0.15))
    for i, color in enumerate(colors):
        t = 2 * ((phase + i / 3) % 1) - 1
        arch = hip + who.size * np.array([0.28 * np.sin(np.pi * t), -0.25 - 0.55 * (1 - t * t)])
        _ball(picture, arch, 0.05 * who.size, color)


def _swing(picture: np.ndarray, who: Person, hip: np.ndarray, phase: float) -> None:
    angle = 0.7 * np.sin(2 * np.pi * phase)
    rope = 0.75 * who.size
    beam = hip - (0, rope)
    seat = beam + rope * np.array([np.sin(angle), np.cos(angle)])
    frame = (0.25, 0.3, 0.35)
    for side in (-1, 1):
        foot = beam + (side * 0.7 * who.size, 1.2 * who.size)
        _limb(picture, [beam + (side * 0.3 * who.size, 0), foot], 0.05 * who.size, frame)
    _limb(picture, [beam - (0.5 * who.size, 0), beam + (0.5 * who.size, 0)], 0.06 * who.size, frame)
    for side in (-1, 1):
        _limb(picture, [beam + (4 * side, 0), seat + (4 * side, 0)], 2, (0.8, 0.8, 0.8))
    reach = 0.6 + 0.5 * np.sin(2 * np.pi * phase)
    _body(picture, who, seat, [(2.2, 2.9), (2.4, 3.0)], [(1.4, reach), (1.3, reach)])


# Named as the UCF-101 classes they stand for.
ACTIONS: dict[str, Action] = {
    'HulaHoop': _hula_hoop,
    'JugglingBalls': _juggling,
    'JumpingJack': _jumping_jack,
    'Swing': _swing,
}
