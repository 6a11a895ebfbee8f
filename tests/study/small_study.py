"""Small data and a small plan for the study's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

STUDY = Path(__file__).resolve().parents[2] / 'study'


def draw_photos(folder: Path, number: int, size: int = 16, seed: int = 0) -> Path:
    """Draws photos of two classes that differ in colour, in a folder for each."""
    random = np.random.default_rng(seed)
    for name, colour in (('red', (200, 60, 60)), ('blue', (60, 60, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(number):
            photo = np.clip(random.normal(colour, 60, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(photo).save(folder / name / f'{i:03}.png')
    return folder


PLAN = dict(
    data=dict(photos='photos'),
    nets=dict(
        tiny=dict(block='basic', blocks=[1, 1], channels=4, stem='cifar'),
        neck=dict(block='bottleneck', blocks=[1, 1], channels=4, stem='cifar'),
    ),
    arms=dict(
        bn={},
        bnet3=dict(norm='bnet', k=3),
        control3=dict(norm='control'),
        dw3=dict(norm='depthwise'),
        longer=dict(longer=2.0),
        fast=dict(norm='bnet', kernel_lr=10, kernel_decay=0),
    ),
    tasks=dict(
        colours=dict(
            kind='classification', data='photos', size=16, train_size=16, epochs=2, batch=10,
            lr=0.05,
        ),
        later=dict(
            kind='classification', data='photos', size=16, train_size=12, augment='scale', epochs=1,
            batch=10, lr=0.05,
        ),
    ),
    runs=[dict(task='colours', net='tiny', arm=['bn', 'bnet3'], seed=[0, 1])],
)  # fmt: skip
