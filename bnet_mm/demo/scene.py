"""Puts things into a scene, some behind others, and keeps the visible part of each."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bnet_mm.demo.texture import background, camera, clouds, light
from bnet_mm.demo.things import THINGS, paint, pick_colors, pose

SIZES = ((192, 256), (256, 192), (192, 256), (224, 224))  # height, width; most are landscape
# A scene in which less of some object is visible is drawn anew, so that all are labelled.
MIN_VISIBLE = 0.35
MIN_PIXELS = 60


def draw_scene(
    rng: np.random.Generator, names: Sequence[str]
) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
    """Draws an image of one to five objects.

    Args:
        rng: determines the scene.
        names: the things to choose from.

    Returns:
        a `(height, width, 3)` uint8 BGR image, and the objects, the nearest one last: the name of
        each and a `(height, width)` bool mask of its visible part.
    """
    height, width = SIZES[rng.integers(len(SIZES))]
    while True:
        chosen = [str(name) for name in rng.choice(list(names), rng.integers(1, 6))]
        placed = [(name, _place(rng, name, height, width)) for name in chosen]
        placed.sort(key=lambda item: item[1][..., 3].sum())  # small ones are far away
        image = background(rng, height, width)
        objects: list[tuple[str, np.ndarray]] = []
        for name, layer in placed:
            image = _lay(rng, image, layer)
            mask = layer[..., 3] > 0.5
            for _, behind in objects:
                behind &= ~mask
            objects.append((name, mask))
        whole = [(layer[..., 3] > 0.5).sum() for _, layer in placed]
        if all(
            mask.sum() >= max(MIN_VISIBLE * size, MIN_PIXELS)
            for (_, mask), size in zip(objects, whole)
        ):
            return camera(rng, image), objects


def _place(rng: np.random.Generator, name: str, height: int, width: int) -> np.ndarray:
    """Returns a thing, turned, scaled and sheared, in a `(height, width, 4)` layer.

    Its channels are blue, green and red times the opacity, and the opacity, in [0, 1].
    """
    size = min(height, width) * np.exp(rng.uniform(np.log(0.14), np.log(0.6)))
    angle = rng.normal(0, 0.35)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, rng.normal(0, 0.12)], [0, rng.uniform(0.8, 1.2)]])
    center = rng.uniform(0.35 * size, [width - 0.35 * size, height - 0.35 * size])
    canvas = np.zeros((height, width, 4), np.uint8)
    paint(canvas, pose(rng, THINGS[name]), pick_colors(rng), 0.46 * size * turn @ shear, center)
    layer = canvas.astype(np.float32) / 255
    grain = 0.75 + 0.5 * clouds(rng, height, width, 7)
    layer[..., :3] *= (grain * light(rng, height, width))[..., None]
    return layer


def _lay(rng: np.random.Generator, image: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Returns the image with an object over it and the object's soft shadow beneath."""
    opacity = layer[..., 3:]
    shadow = cv2.GaussianBlur(opacity, (0, 0), 1 + 0.04 * np.sqrt(opacity.sum()))
    shadow = np.roll(shadow, rng.integers(1, 5, 2), (0, 1))[..., None]
    return image * (1 - 0.45 * shadow) * (1 - opacity) + layer[..., :3]
