"""Batches from decoded photos: cut, flipped and normalized on the device, all at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 4  # pixels
AREA = (0.35, 1.0)
RATIO = (3 / 4, 4 / 3)
PART = 0.2  # of a GPU's free memory, for the photos of one run of several side by side


class Batches:
    """The photos of a split on a device.

    Args:
        photos: `(N, 3, H, W)`, uint8.
        labels: `(N,)`.
        device: where batches are made; photos are kept there if there is room.

    Attributes:
        mean, std: of each channel of the training photos, in 0 to 1; for `normalized`.
    """

    def __init__(self, photos: np.ndarray, labels: np.ndarray, device: torch.device):
        self.photos = torch.from_numpy(photos)
        if device.type == 'cuda' and photos.nbytes < PART * torch.cuda.mem_get_info(device)[0]:
            self.photos = self.photos.to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.device = device
        some = self.photos[:: max(1, len(photos) // 5000)].to(device).float().div(255)
        self.mean = some.mean((0, 2, 3)).view(1, 3, 1, 1)
        self.std = some.std((0, 2, 3)).view(1, 3, 1, 1)

    def training(self, batch: int, size: int, augment: str, seed: int, epoch: int) -> Iterator:
        """Yields batches of an epoch, whose random choices follow from seed and epoch alone.

        The last, smaller batch is left out. Where there are fewer photos than `batch`, all are one.

        Args:
            batch: photos in each.
            size: side of what they are cut to.
            augment: 'shift' by up to 4 pixels, 'scale' to a part of 35 to 100 % of the area, both
                with flips, or 'none'.
            seed, epoch: of the run.
        """
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(len(self.photos))
        batch = min(batch, len(order))
        for start in range(0, len(order) - batch + 1, batch):
            chosen = torch.from_numpy(order[start : start + batch])
            x = self.photos[chosen.to(self.photos.device)].to(self.device).float().div_(255)
            x = _cut(x, size, augment, random)
            yield self.normalized(x), self.labels[chosen.to(self.device)]

    def testing(self, batch: int) -> Iterator:
        """Yields all photos, in 0 to 1 and not normalized, and their labels."""
        for start in range(0, len(self.photos), batch):
            x = self.photos[start : start + batch].to(self.device).float().div_(255)
            yield x, self.labels[start : start + batch]

    def normalized(self, x: Tensor) -> Tensor:
        """Subtracts the mean and divides by the deviation, channel by channel."""
        x = (x - self.mean) / self.std
        return x.to(memory_format=torch.channels_last)


def _cut(x: Tensor, size: int, augment: str, random: np.random.Generator) -> Tensor:
    n, _, height, width = x.shape
    if augment == 'none':
        return x if height == size else F.interpolate(x, (size, size), mode='bilinear')
    flip = torch.from_numpy(random.random(n) < 0.5).to(x.device)
    x = torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x)
    if augment == 'shift':
        x = F.pad(x, (SHIFT,) * 4)
        room = (height + 2 * SHIFT - size, width + 2 * SHIFT - size)
        top, left = (torch.from_numpy(random.integers(0, r + 1, n)).to(x.device) for r in room)
        pixels = torch.arange(size, device=x.device)
        rows = (top[:, None] + pixels)[:, None, :, None]
        columns = (left[:, None] + pixels)[:, None, None, :]
        images = torch.arange(n, device=x.device)[:, None, None, None]
        channels = torch.arange(3, device=x.device)[None, :, None, None]
        return x[images, channels, rows, columns]
    area = random.uniform(*AREA, n)
    ratio = np.exp(random.uniform(*np.log(RATIO), n))
    w, h = np.minimum(1, np.sqrt(area * ratio)), np.minimum(1, np.sqrt(area / ratio))
    # In grid_sample's coordinates, -1 to 1.
    across, down = (random.uniform(-1, 1, n) * (1 - side) for side in (w, h))
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = w, across, h, down
    grid = F.affine_grid(torch.from_numpy(theta).to(x.device), [n, 3, size, size], False)
    return F.grid_sample(x, grid, mode='bilinear', padding_mode='reflection', align_corners=False)
