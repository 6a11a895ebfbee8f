"""Draws heat maps over the pictures they belong to."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from bnet_mm.analysis.figures import save_figure
from bnet_mm.analysis.heatmap import HeatMap
from bnet_mm.errors import InputError

VIDEOS = {'.avi', '.mkv', '.mov', '.mp4', '.webm'}
LONGEST, SHORTEST = 1024, 64  # pixels of a picture's sides


def pictures_of(path: Path, frames: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields name and `(H, W, 3)` bytes, BGR, of a picture, or of a video's frames.

    Args:
        path: a picture in any format that OpenCV reads, grey ones too, or a video.
        frames: how many of a video, evenly spread.

    Raises:
        InputError: it cannot be read.
    """
    if not path.is_file():
        raise InputError(f'there is no picture {path}')
    if path.suffix.lower() not in VIDEOS:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise InputError(f'{path} cannot be read as a picture')
        yield path.stem, picture
        return
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    try:
        for index in np.linspace(0, max(count - 1, 0), min(frames, max(count, 1))).astype(int):
            video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
            read, picture = video.read()
            if not read:
                raise InputError(f'{path} cannot be read as a video at frame {index}')
            yield f'{path.stem}_{index:05d}', picture
    finally:
        video.release()


def of_usual_size(picture: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    """Returns a picture of `shape` (height, width), or of its own within bounds."""
    height, width = picture.shape[:2]
    if shape is None:
        scale = min(LONGEST / max(height, width), 1.0)
        shape = [max(round(side * scale), SHORTEST) for side in (height, width)]
    shrinks = shape[0] * shape[1] < height * width
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (shape[1], shape[0]), interpolation=way)


def draw_heat_maps(picture: np.ndarray, maps: Sequence[HeatMap], file: Path) -> None:
    """Writes a sheet: the picture, and over it each layer's map, from its least to its most.

    Args:
        picture: `(H, W, 3)` bytes, BGR, of which the maps are.
        maps: see `bnet_mm.analysis.heatmap.heat_maps`.
        file: a `.png`, `.pdf` or `.svg`.

    Raises:
        InputError: it cannot be written.
    """
    height, width = picture.shape[:2]
    panel = 3.2  # inches of the longer side
    wide = width >= height
    size = (panel, panel * height / width) if wide else (panel * width / height, panel)
    columns = len(maps) + 1
    figure = Figure(
        figsize=(max(size[0], 1.2) * columns, max(size[1], 1.2) + 0.6), layout='constrained'
    )
    axes = figure.subplots(1, columns, squeeze=False)[0]
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    grey = np.repeat(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None], 3, 2)
    for ax in axes:
        ax.set_axis_off()
    axes[0].imshow(rgb)
    axes[0].set_title('picture', fontsize=8)
    for ax, found in zip(axes[1:], maps, strict=True):
        share = found.above.numpy() / found.channels
        smooth = cv2.resize(
            share.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
        )
        ax.imshow(grey)
        ax.imshow(smooth, cmap='inferno', alpha=0.65, vmin=share.min(), vmax=share.max() or 1)
        ax.set_title(
            f'{found.layer.removeprefix("backbone.")}\n{100 * share.min():.0f} to '
            f'{100 * share.max():.0f} % of {found.channels} channels',
            fontsize=8,
        )
    save_figure(figure, file)
