"""What is measured of a trained classifier besides its accuracy."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Returns the share of right answers, in percent."""
    return 100 * (logits.argmax(1) == labels).double().mean().item()


def calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Returns the expected calibration error, in percent (Guo et al., arXiv 1706.04599).

    Answers are put into bins of equal width by their confidence; it is the mean distance between a
    bin's confidence and its accuracy, weighted by answers.

    Example:
        >>> sure_and_right = torch.tensor([[50.0, 0.0]])
        >>> calibration_error(sure_and_right, torch.tensor([0]))
        0.0
    """
    confidence, answers = logits.double().softmax(1).max(1)
    right = (answers == labels).double()
    edges = (confidence * bins).long().clamp(max=bins - 1)
    error = 0.0
    for i in range(bins):
        inside = edges == i
        if inside.any():
            gap = (confidence[inside].mean() - right[inside].mean()).abs()
            error += gap.item() * inside.double().mean().item()
    return 100 * error


def _noise(x: Tensor, random: np.random.Generator) -> Tensor:
    noise = random.standard_normal(x.shape, dtype=np.float32)
    return x + 0.1 * torch.from_numpy(noise).to(x.device)


def _blur(x: Tensor, random: np.random.Generator) -> Tensor:
    sigma = x.shape[-1] / 40
    reach = max(1, round(2 * sigma))
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weight = torch.exp(-(at**2) / (2 * sigma**2))
    weight = (weight / weight.sum()).expand(3, 1, 1, -1)
    x = F.pad(x, (reach,) * 4, mode='reflect')
    return F.conv2d(F.conv2d(x, weight, groups=3), weight.transpose(2, 3), groups=3)


def _contrast(x: Tensor, random: np.random.Generator) -> Tensor:
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + 0.4 * (x - mean)


def _pixels(x: Tensor, random: np.random.Generator) -> Tensor:
    size = x.shape[-2:]
    small = F.interpolate(x, scale_factor=0.5, mode='area')
    return F.interpolate(small, size, mode='nearest')


def _covered(x: Tensor, random: np.random.Generator) -> Tensor:
    n, _, height, width = x.shape
    side = min(height, width) * 2 // 5
    x = x.clone()
    tops, lefts = random.integers(0, height - side + 1, n), random.integers(0, width - side + 1, n)
    for i, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist())):
        x[i, :, top : top + side, left : left + side] = 0.5
    return x


# Each takes and gives photos `(N, 3, H, W)` in 0 to 1.
CORRUPTIONS = dict(
    noise=_noise, blur=_blur, contrast=_contrast, pixelation=_pixels, covered=_covered
)


def corrupted(x: Tensor, kind: str, batch: int) -> Tensor:
    """Returns photos corrupted in one of the ways of `CORRUPTIONS`, the same for every run.

    Args:
        x: `(N, 3, H, W)`, in 0 to 1.
        kind: which.
        batch: the number of the batch, from which random choices follow.
    """
    random = np.random.default_rng((list(CORRUPTIONS).index(kind), batch))
    return CORRUPTIONS[kind](x, random).clamp(0, 1)
