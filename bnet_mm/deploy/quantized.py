"""An ONNX graph in 8 bits, by onnxruntime's static quantization, and what that costs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bnet_mm.deploy.runtimes import run_graph
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.pictures import SUFFIXES


@dataclass(frozen=True)
class Cost:
    """What became of the outputs in 8 bits, on the photos that the ranges were taken from.

    Attributes:
        photos: how many.
        same: share of photos, of pixels for a segmentor, that keep their class; None of a backbone.
        error: mean difference of the first output, relative to its mean magnitude.
    """

    photos: int
    same: float | None
    error: float


def photos_in(folder: str | Path, most: int = 128) -> list[Path]:
    """Returns the photos in a folder, in the order of their names.

    Raises:
        InputError: there is no such folder, or no photo in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'{folder} is not a folder: name one with photos to take the ranges from')
    found = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f'{folder} has no photo, from which the ranges of 8 bits are taken')
    return found[:most]


def quantize(file: Path, out: Path, images: Sequence[Tensor], classes: bool) -> Cost:
    """Writes a graph with weights and maps in 8 bits, and compares it with the one in float32.

    Args:
        file: the graph in float32.
        out: the file to write.
        images: preprocessed photos `(1, C, H, W)`, from which the ranges of the maps are taken.
        classes: whether the first output scores classes, along its second dimension.

    Raises:
        InputError: onnxruntime cannot quantize the graph, or is not installed.
    """
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise InputError(f'8 bits need onnxruntime: pip install onnxruntime ({error})') from error

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict | None:
            image = next(self.left, None)
            return None if image is None else {'input': image.numpy()}

    prepared = out.with_name(f'{out.name}.prepared')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                *(str(prepared), str(out), Reader()),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
            )
    except Exception as error:  # it has no class of its own for what it does not know
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
        raise InputError(f'onnxruntime cannot quantize this graph ({reason})') from error
    finally:
        prepared.unlink(missing_ok=True)
    kept, errors = [], []
    for image in images:
        before, after = (run_graph(graph, image) for graph in (file, out))
        assert before is not None and after is not None  # onnxruntime is here
        a, b = before[0], after[0]
        kept.append((a.argmax(1) == b.argmax(1)).float().mean())
        errors.append((a - b).abs().mean() / a.abs().mean())
    same = torch.stack(kept).mean().item() if classes else None
    return Cost(len(images), same, torch.stack(errors).mean().item())
