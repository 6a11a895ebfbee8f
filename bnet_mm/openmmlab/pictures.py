"""Images in files, as the networks of configs take them: of three colours, or of other bands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import LIBRARIES, library_of

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.npy', '.png', '.tif', '.tiff', '.webp'}
# How the libraries' preprocessors call that they turn BGR into RGB.
TO_RGB = ('_channel_conversion', 'channel_conversion', 'to_rgb')


def read_image(path: str | Path, channels: int = 3) -> np.ndarray:
    """Returns the image in a file as `(H, W, channels)`, three colours as BGR bytes.

    Args:
        path: what OpenCV reads, or an `.npy` array `(H, W, channels)`. Grey images become three
            equal colours, coloured ones grey where the network has one channel.
        channels: of the network's images. Other numbers than 1 and 3 are what the file has: bands
            of a TIFF, stacked flow.

    Raises:
        InputError: there is none, it cannot be read, or it has another number of channels.
    """
    import cv2
    import numpy as np

    path = Path(path)
    if not path.is_file():
        raise InputError(f'there is no image {path}')
    flags = {3: cv2.IMREAD_COLOR, 1: cv2.IMREAD_GRAYSCALE}
    try:
        if path.suffix == '.npy':
            image = np.load(path, allow_pickle=False)
        else:
            contents = np.fromfile(path, np.uint8)
            flag = flags.get(channels, cv2.IMREAD_UNCHANGED)
            image = cv2.imdecode(contents, flag) if contents.size else None
    except (OSError, ValueError, cv2.error) as error:  # of OpenCV: more than 2^30 pixels
        reason = getattr(error, 'err', None) or getattr(error, 'strerror', None) or error
        raise InputError(f'{path} cannot be read as an image: {reason}') from error
    if image is None:
        raise InputError(f'{path} cannot be read as an image')
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] != channels:
        raise InputError(
            f'{path} is of shape {image.shape}, and the network takes {channels} channels: name a '
            f'file (H, W, {channels}), an .npy array for example'
        )
    return image


def in_colours(image: np.ndarray) -> np.ndarray:
    """Returns an image of any bands as `(H, W, 3)` bytes, to look at: the first three, or grey.

    Values that are no bytes (reflectance, counts, flow) are stretched from the least to the most.
    """
    import numpy as np

    bands = image[..., :3] if image.shape[-1] > 2 else image[..., [0, 0, 0]]
    if bands.dtype == np.uint8:
        return bands
    low, high = float(bands.min()), float(bands.max())
    if low < 0 or not 1 < high <= 255:
        bands = (bands - low) / (high - low or 1) * 255
    return bands.astype(np.uint8)


def resized(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns an image `(H, W, C)` of another height and width."""
    import cv2

    shrinks = shape[0] * shape[1] < image.shape[0] * image.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    # OpenCV drops a single channel.
    return cv2.resize(image, shape[::-1], interpolation=way).reshape(*shape, -1)


def preprocessed(image: np.ndarray, model: nn.Module) -> Tensor:
    """Returns an image as the model's own preprocessor would give it, `(1, C, H, W)`.

    Args:
        image: `(H, W, C)`, three colours as BGR.
        model: an OpenMMLab model.
    """
    tensor = torch.from_numpy(image.astype('float32')).permute(2, 0, 1)[None]
    if tensor.shape[1] == 3 and _wants_rgb(model):
        tensor = tensor.flip(1)
    preprocessor = model.data_preprocessor
    if isinstance(getattr(preprocessor, 'mean', None), Tensor):
        mean, std = (t.cpu().view(1, -1, 1, 1) for t in (preprocessor.mean, preprocessor.std))
        tensor = (tensor - mean) / std
    return tensor


def _wants_rgb(model: nn.Module) -> bool:
    """Tells whether a model's network sees red first."""
    preprocessor = model.data_preprocessor
    turns = any(getattr(preprocessor, name, False) for name in TO_RGB)
    library = library_of(model)
    if library is not None and LIBRARIES[library].decodes_rgb:
        return not turns
    if turns:
        return True
    # Datasets that give RGB, CIFAR's for example, are told by their means: of natural images red
    # has the largest and blue the smallest.
    means = getattr(preprocessor, 'mean', None)
    return isinstance(means, Tensor) and means.numel() == 3 and bool(means.flatten()[0] > means[-1])
