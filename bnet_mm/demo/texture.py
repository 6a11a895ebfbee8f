"""Textures that look like a photograph's: clouds of every size, uneven light, sensor noise."""

from __future__ import annotations

import cv2
import numpy as np


def clouds(rng: np.random.Generator, height: int, width: int, octaves: int = 6) -> np.ndarray:
    """Returns a `(height, width)` float32 map in [0, 1] with detail at `octaves` scales."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cells = 2 ** (octave + 1)
        coarse = rng.random((cells + 1, cells + 1), dtype=np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns a `(height, width, 3)` float32 image in [0, 1]: two blended materials, lit."""
    colors = rng.uniform(0.15, 0.85, (4, 3)).astype(np.float32)
    blend, first, second = (clouds(rng, height, width)[..., None] for _ in range(3))
    edge = np.clip((blend - 0.5) * rng.uniform(4, 12) + 0.5, 0, 1)
    image = edge * (colors[0] * first + colors[1] * (1 - first))
    image += (1 - edge) * (colors[2] * second + colors[3] * (1 - second))
    return image * light(rng, height, width)[..., None]


def light(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns a `(height, width)` float32 factor around 1: a slope in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return 1 + rng.uniform(0.05, 0.3) * (np.cos(angle) * x + np.sin(angle) * y)


def camera(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Returns the uint8 image a camera would save: a little blur, noise, rounding."""
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9))
    noisy = blurred + rng.normal(0, rng.uniform(0.005, 0.03), image.shape)
    return np.clip(noisy * 255 + 0.5, 0, 255).astype(np.uint8)
