"""Whole detectors as ONNX, in standard operators, compared detection by detection."""

from __future__ import annotations

import inspect
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from bnet_mm.deploy.agreement import SCORE, STRAYS, Agreement, agreement, same_finds
from bnet_mm.deploy.deformable import with_deformable
from bnet_mm.deploy.fusing import fuse
from bnet_mm.deploy.onnx import Export
from bnet_mm.deploy.operators import check_operators, check_opset
from bnet_mm.deploy.quantized import Photos
from bnet_mm.deploy.rewriters import OPSET, rewritten, tell_corners
from bnet_mm.deploy.runtimes import Graph
from bnet_mm.deploy.writing import check_packages, graph_file, graph_for, write_graph_file
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.openmmlab.models import build_model, load_model
from bnet_mm.openmmlab.pictures import preprocessed, read_image, resized
from bnet_mm.openmmlab.running import input_channels, input_shape, sized_errors

OUTPUTS = ('boxes', 'scores', 'labels', 'masks')  # the last where a model segments instances


class Detections(nn.Module):
    """A detector that takes an image and gives what it has found in it.

    Args:
        model: of MMDetection, in evaluation mode, of torch's own modules.
        size: height and width of the image.

    Shape:
        input `(1, C, H, W)`, preprocessed; boxes `(n, 4)` in its pixels, scores `(n,)`, labels
        `(n,)`, and masks `(n, H, W)` of a model that segments instances.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.model, self.size = model, size

    def sample(self) -> Any:
        """Returns what the library keeps beside an image."""
        from mmdet.structures import DetDataSample

        sizes = dict.fromkeys(
            ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), self.size
        )
        border = (0, self.size[0], 0, self.size[1])  # of what CenterNet's images are cut from
        return DetDataSample(
            metainfo=dict(sizes, scale_factor=(1.0, 1.0), border=border, img_id=0, img_path='')
        )

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        found = self.model(input, data_samples=[self.sample()], mode='predict')
        if isinstance(found[0], Tensor):  # rewritten, with a batch and boxes of no size as filling
            boxes, labels, *masks = (part[0] for part in found)
            kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            kept = kept.nonzero().squeeze(1)
            boxes = boxes.index_select(0, kept)
            labels = labels.index_select(0, kept)
            masks = [mask.index_select(0, kept) for mask in masks]
            return boxes[:, :4], boxes[:, 4], labels, *masks
        found = found[0].pred_instances
        masks = [found.masks] if 'masks' in found else []
        return found.bboxes, found.scores, found.labels, *masks


def export_detector(
    cfg: Config,
    checkpoint: str | None,
    out: str | Path,
    shape: tuple[int, int] | None = None,
    image: str | Path | None = None,
    runtime: str = 'onnxruntime',
    int8: str | Path | None = None,
    opset: int | None = None,
    free_size: bool = True,
    half: bool = False,
) -> Export:
    """Writes a whole detector, as ONNX or for OpenVINO.

    An image in, boxes, scores, labels and masks out. Its norms are folded first. The graph has
    operators of ONNX alone, and takes one image at a time: what a detector finds has no fixed
    number. The size of the image is free where the model allows: the graph is compared at a second
    size, and where it fails there one of `shape` alone is written.

    Args:
        cfg: a whole config of MMDetection.
        checkpoint: its weights; None for the initial ones.
        out: the `.onnx` file, or with `runtime` 'openvino' its `.xml` file.
        shape: height and width of the image, which the network must take; the library's usual one
            by default.
        image: a photo to compare on, where each detection must have its counterpart. By default it
            is random values, of which some detections change with the last bit of a score.
        runtime: one of `RUNTIMES`, in which the file is compared.
        int8: a folder of photos; weights and maps are in 8 bits then, with ranges as on these, up
            to the last layers of the heads and the postprocessing.
        opset: of ONNX's operators, 16 by default, which is the least.
        free_size: whether height and width may differ from `shape` later, if the model allows.
        half: whether an `.xml` file has weights of 16 bits.

    Raises:
        InputError: something of this cannot be used, mmdeploy does not know the model, or
            the runtime finds other things than torch.
    """
    out = graph_file(out, runtime, half)
    check_packages(dynamo=False)
    check_opset(opset, OPSET)
    if checkpoint is None:
        model = revert_sync_batchnorm(build_model(cfg))
    else:
        model, _ = load_model(cfg, checkpoint)
    if not hasattr(model, 'add_pred_to_datasample'):
        raise InputError(
            f'{type(model).__name__} is no detector of MMDetection: leave --part detector out'
        )
    size = shape or input_shape(cfg)
    channels = input_channels(model)
    example = _found_by(model, _image(model, channels, size, image))
    agreements: list[Agreement] = []
    fixed: list[str] = []

    def write_and_compare(file: Path) -> None:
        folded = fuse(model, shape=size, plain=True)
        if free_size:
            try:
                other = _found_by(model, _image(model, channels, _another(size, model), image))
                _write(deepcopy(folded), example, file, opset, free_size=True)
                agreements.extend(_compared([example, other], graph_for(out, file, runtime), image))
                return
            except InputError as error:  # with a size that is not free it may be another
                fixed.append(str(error))
        try:
            _write(folded, example, file, opset, free_size=False)
            agreements.extend(_compared([example], graph_for(out, file, runtime), image))
        except InputError as error:
            raise InputError(f'nothing was written: {error}') from error

    photos = None if int8 is None else Photos(int8, model, channels, size)
    half_on = [example.image] if half else None
    cost = write_graph_file(out, write_and_compare, same_finds, runtime, photos, half_on)
    return Export(
        out,
        list(example.outputs),
        max((found.score for found in agreements), default=None),
        sum(found.compared - found.tied for found in agreements),
        cost,
        size if fixed or not free_size else None,
        *fixed,
    )


@dataclass(frozen=True)
class _Example:
    """An image `(1, C, H, W)`, and what the trained model finds in it."""

    image: Tensor
    found: tuple[Tensor, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is found."""
        return OUTPUTS[: len(self.found)]


def _image(
    model: nn.Module, channels: int, size: tuple[int, int], file: str | Path | None
) -> Tensor:
    if file is None:
        return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    return preprocessed(resized(read_image(file, channels), size), model)


@torch.no_grad()
def _found_by(model: nn.Module, image: Tensor) -> _Example:
    try:
        with sized_errors(model, image):
            return _Example(image, Detections(model, tuple(image.shape[2:])).eval()(image))
    except InputError:
        raise
    except Exception as error:  # of any kind, as what a model asks of the data beside the image
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200]
        raise InputError(
            f'{type(model).__name__} finds nothing in an image alone ({reason}): say '
            f'--part backbone'
        ) from error


def _another(size: tuple[int, int], model: nn.Module) -> tuple[int, int]:
    """Returns a size that is higher and narrower, of whole strides of the model."""
    stride = max(32, getattr(model.data_preprocessor, 'pad_size_divisor', 1))
    height, width = size
    return height + stride, width - stride if width > 2 * stride else width + 2 * stride


def _write(
    model: nn.Module, example: _Example, file: Path, opset: int | None, free_size: bool
) -> None:
    size, outputs = tuple(example.image.shape[2:]), list(example.outputs)
    options: dict = dict(dynamo=False) if HAS_DYNAMO_ONNX else {}
    if 'autograd_inlining' in inspect.signature(torch.onnx.export).parameters:
        options['autograd_inlining'] = False  # mmdeploy's operators are functions of autograd
    if free_size:
        axes = {'input': {2: 'height', 3: 'width'}, 'masks': {0: 'n', 1: 'height', 2: 'width'}}
        options['dynamic_axes'] = {name: axes.get(name, {0: 'n'}) for name in ('input', *outputs)}
    with rewritten(model, outputs, free_size) as patched:
        found = Detections(patched, size).eval()

        def export(opset: int | None) -> None:
            torch.onnx.export(
                *(found, (example.image,), str(file)),
                input_names=['input'],
                output_names=outputs,
                opset_version=opset or OPSET,
                **options,
            )

        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter('ignore')  # of what a trace takes for constant
                with_deformable(model, export, opset)
        except InputError:
            raise
        except Exception as error:  # of any kind: mmdeploy's, torch's, the model's
            lines = (str(error).strip() or type(error).__name__).splitlines()
            # Of an operator that it does not know, torch shows the whole graph below.
            reason = lines[0 if lines[0].startswith('ONNX export failed') else -1][:200]
            raise InputError(
                f'{type(model).__name__} cannot be exported whole ({reason}), but in part: '
                f'--part backbone'
            ) from error
    tell_corners(file)
    check_operators(file)


def _compared(
    examples: list[_Example], graph: Graph | None, image: str | Path | None
) -> list[Agreement]:
    """Compares what a written graph finds; of an image in a file everything has to be the same.

    Raises:
        InputError: the graph finds other things, or cannot be run.
    """
    if graph is None:
        return []
    most = STRAYS if image is None else 0.0
    agreements = []
    for example in examples:
        found = agreement(example.found, tuple(graph(example.image)))
        agreements.append(found)
        if found.lacking <= most * found.compared and found.tied <= STRAYS * found.compared:
            continue
        if image is None:
            advice = '. Give a photo of what it was trained on (--image)'
        elif not (example.found[1] > SCORE).any():
            advice = (
                f'. It is sure of nothing in this photo (no score above {SCORE}), and the last '
                f'bit decides which unlikely ones it keeps: give another, or train it further'
            )
        else:
            advice = ''
        height, width = example.image.shape[2:]
        raise InputError(
            f'{graph.runtime} finds other things than torch in {height}x{width}: '
            f'{found.lacking + found.tied} of {found.compared} detections have no counterpart'
            f'{advice}'
        )
    return agreements
