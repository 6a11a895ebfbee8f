"""Puts objects into a scene, some behind others, and keeps what is seen of each."""

from dataclasses import dataclass

import cv2
import numpy as np

from bnet_mm.demo.ink import CANVAS, Drawing, draw_object
from bnet_mm.demo.texture import background, camera, clouds, light

SIZES = ((192, 256), (256, 192), (192, 256), (224, 224))  # height, width; most are landscape
# A scene in which less is seen of some object is drawn anew, so that everything is labelled.
MIN_VISIBLE = 0.35
MIN_PIXELS = 60


@dataclass
class Instance:
    """One labelled object: its category's name and a `(H, W)` bool mask of what is seen of it."""

    name: str
    mask: np.ndarray


def draw_scene(
    rng: np.random.Generator, height: int, width: int, drawings: dict[str, Drawing]
) -> tuple[np.ndarray, list[Instance]]:
    """Draws a picture of one to five objects.

    Args:
        rng: where the scene is taken from.
        height, width: size of the picture.
        drawings: the kinds of objects, by name.

    Returns:
        a `(height, width, 3)` uint8 BGR picture and its objects, the nearest one last.
    """
    while True:
        names = [str(name) for name in rng.choice(list(drawings), rng.integers(1, 6))]
        placed = [(name, _place(rng, drawings[name], height, width)) for name in names]
        placed.sort(key=lambda item: item[1][..., 3].sum())  # small ones are far away
        picture = background(rng, height, width)
        instances: list[Instance] = []
        for name, drawing in placed:
            picture = _lay(rng, picture, drawing)
            mask = drawing[..., 3] > 0.5
            for behind in instances:
                behind.mask &= ~mask
            instances.append(Instance(name, mask))
        seen = [instance.mask.sum() for instance in instances]
        whole = [(drawing[..., 3] > 0.5).sum() for _, drawing in placed]
        if all(
            part >= max(MIN_VISIBLE * size, MIN_PIXELS)
            for part, size in zip(seen, whole, strict=True)
        ):
            return camera(rng, picture), instances


def _place(rng: np.random.Generator, kind: Drawing, height: int, width: int) -> np.ndarray:
    """Returns an object turned, scaled, sheared and moved into a `(height, width, 4)` layer."""
    drawing = draw_object(rng, kind)
    grain = 0.75 + 0.5 * clouds(rng, CANVAS, CANVAS)
    drawing[..., :3] *= (grain * light(rng, CANVAS, CANVAS))[..., None]
    size = min(height, width) * np.exp(rng.uniform(np.log(0.14), np.log(0.6)))
    angle = rng.normal(0, 0.35)
    scale = size / CANVAS
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, rng.normal(0, 0.12)], [0, rng.uniform(0.8, 1.2)]])
    matrix = scale * turn @ shear
    center = rng.uniform(0.35 * size, [width - 0.35 * size, height - 0.35 * size])
    offset = center - matrix @ np.full(2, CANVAS / 2)
    # Shrinking without blur would leave aliased edges, which no camera makes.
    if scale < 0.7:
        drawing = cv2.GaussianBlur(drawing, (0, 0), 0.4 / scale)
    return cv2.warpAffine(drawing, np.column_stack([matrix, offset]), (width, height))


def _lay(rng: np.random.Generator, picture: np.ndarray, drawing: np.ndarray) -> np.ndarray:
    """Returns the picture with an object over it and the object's soft shadow beneath."""
    opacity = drawing[..., 3:]
    spread = 1 + 0.04 * np.sqrt(opacity.sum())
    shadow = cv2.GaussianBlur(opacity, (0, 0), spread)
    shadow = np.roll(shadow, rng.integers(1, 5, 2), (0, 1))[..., None]
    return picture * (1 - 0.45 * shadow) * (1 - opacity) + drawing[..., :3] * opacity
