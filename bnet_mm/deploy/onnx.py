"""Writes trained models as ONNX and compares what a runtime makes of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from bnet_mm.deploy.deformable import with_deformable
from bnet_mm.deploy.free_sizes import free_sizes
from bnet_mm.deploy.fusing import fuse, largest_difference
from bnet_mm.deploy.operators import check_operators, check_opset, opset_of
from bnet_mm.deploy.quantized import Cost, Photos, same_classes, same_values
from bnet_mm.deploy.runtimes import Graph
from bnet_mm.deploy.writing import check_packages, graph_file, graph_for, write_graph_file
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.openmmlab.models import build_model, load_model
from bnet_mm.openmmlab.running import clip_frames, input_channels, input_shape, sized_errors

# Largest difference of a value, relative to the largest value.
TOLERANCE = 1e-4
PROVED_ON = 224  # rows and columns, at most
WHOLE_MODELS = ('mmseg', 'mmpretrain')
UNWRITTEN = 'torch cannot export this model'


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file.
        outputs: names of its outputs.
        difference: largest difference of the runtime from torch, relative; None where onnxruntime
            is not installed. Of a detector, of the scores.
        compared: how many detections were found the same, of a detector.
        cost: what 8 or 16 bits changed, where they were asked for.
        size: height and width of the images it takes; None where they are free.
        why_fixed: why they are not, though that was asked for.
    """

    path: Path
    outputs: list[str]
    difference: float | None
    compared: int | None = None
    cost: Cost | None = None
    size: tuple[int, int] | None = None
    why_fixed: str | None = None


def export_onnx(
    cfg: Config,
    checkpoint: str | None,
    out: str | Path,
    part: str = 'model',
    shape: tuple[int, int] | None = None,
    free_size: bool = True,
    dynamo: bool = HAS_DYNAMO_ONNX,
    runtime: str = 'onnxruntime',
    int8: str | Path | None = None,
    opset: int | None = None,
    half: bool = False,
) -> Export:
    """Writes the model of `cfg` as ONNX, or for OpenVINO.

    Its norms are folded first (`fuse(plain=True)`), so that a BNET is a depthwise convolution in
    the graph. The input is `(N, C, H, W)`, normalized as the model's data preprocessor does it; the
    number of images is free, in whole clips where a backbone shifts between frames. A segmentor
    gives `logits` `(N, classes, H, W)`, a classifier `(N, classes)`, a backbone its stages.

    Args:
        cfg: a whole config of an image model.
        checkpoint: its weights; None for the initial ones.
        out: the `.onnx` file, or with `runtime` 'openvino' its `.xml` file.
        part: 'model' (MMSegmentation, MMPretrain), or 'backbone' (any library).
        shape: height and width at which it is traced; the library's usual one by default.
        free_size: whether height and width may differ from `shape` later, if the model allows: the
            graph is compared at a second size, and where it fails there one of `shape` is written.
        dynamo: torch's present exporter first, the default where it is (since torch 2.6), and the
            one before it where that fails; False for the latter alone.
        runtime: one of `RUNTIMES`, in which the file is compared.
        int8: a folder of photos; the file has weights and maps in 8 bits then, with ranges as on
            these, at the size of `shape`.
        opset: of ONNX's operators, the exporter's usual one by default.
        half: whether an `.xml` file has weights of 16 bits.

    Raises:
        InputError: something of this cannot be used, the exporter does not know the model, or
            the runtime gives other values.
    """
    out = graph_file(out, runtime, half)
    if dynamo and not HAS_DYNAMO_ONNX:
        raise InputError(
            f'torch {torch.__version__} has the older exporter alone: say dynamo=False'
        )
    check_packages(dynamo)
    check_opset(opset)
    net, outputs, whole = _network(cfg, checkpoint, part)
    height, width = shape or input_shape(cfg)
    generator = torch.Generator().manual_seed(0)
    channels, frames = input_channels(net), clip_frames(net)

    def images(n: int, height: int, width: int) -> Tensor:
        return torch.randn(n * frames, channels, height, width, generator=generator)

    example = images(1, height, width)
    with torch.no_grad(), sized_errors(_named(net), example):
        count = len(_as_tuple(net(example)))
    outputs = outputs or [f'stage{i}' for i in range(1, count + 1)]
    # Folded on a part of an image: the proof keeps all maps in float64.
    folded = fuse(net, images(1, min(height, PROVED_ON), min(width, PROVED_ON)), plain=True)
    differences: list[float | None] = []
    photos = None if int8 is None else Photos(int8, whole, channels, (height, width))
    judge = same_classes if isinstance(net, _Logits) else same_values
    ways = [
        (free, exporter)
        for free in ([True, False] if free_size else [False])
        for exporter in ([True, False] if dynamo else [False])
    ]
    free_ways = sum(free for free, _ in ways)
    failures: list[str] = []

    def write_and_compare(file: Path) -> None:
        for free, exporter in ways:
            size = _another(net, images, height, width) if free else (height, width)
            try:
                # Exporters take sizes of 1 for constants.
                write_graph(folded, images(2, *size), file, outputs, free, exporter, opset)
                check_operators(file)
                compared = [images(1, height, width), *([images(3, *size)] if free else [])]
                differences[:] = _differences(net, compared, graph_for(out, file, runtime))
                return
            except InputError as error:
                failures.append(str(error))
        raise InputError(f'nothing was written: {_telling(failures[free_ways:])}')

    half_on = [example] if half else None
    cost = write_graph_file(out, write_and_compare, judge, runtime, photos, half_on)
    largest = None if None in differences else max(differences)
    fixed = len(failures) >= free_ways
    return Export(
        out,
        outputs,
        largest,
        cost=cost,
        size=(height, width) if fixed else None,
        why_fixed=_telling(failures[:free_ways]) if fixed and free_size else None,
    )


def _network(
    cfg: Config, checkpoint: str | None, part: str
) -> tuple[nn.Module, list[str], nn.Module]:
    scope = cfg.get('default_scope')
    if part == 'model' and scope not in WHOLE_MODELS:
        raise InputError(
            f'whole models of {scope} are not exported here: say --part backbone, or --part '
            f'detector for one of MMDetection'
        )
    if checkpoint is None:
        model = revert_sync_batchnorm(build_model(cfg))
    else:
        model, _ = load_model(cfg, checkpoint, part='backbone' if part == 'backbone' else '')
    if part == 'backbone':
        model.backbone.eval()  # which returns nothing
        return model.backbone, [], model
    # A wrapper is born in training mode, and the older exporter gives its mode to all inside it.
    return _Logits(model).eval(), ['logits'], model


def _another(
    net: nn.Module, images: Callable[[int, int, int], Tensor], height: int, width: int
) -> tuple[int, int]:
    """Returns a second size: of odd sides, from which an exporter cannot conclude that all divide.

    Of networks that do not take such images, one of whole strides.
    """
    odd = height + 33, width + 31
    try:
        with torch.no_grad():
            net(images(1, *odd))
    except (AssertionError, RuntimeError, ValueError):
        return height + 32, width + 64
    return odd


class _Logits(nn.Module):
    """A segmentor or classifier that takes images and gives logits, at a segmentor's image size."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input: Tensor) -> Tensor:
        if hasattr(self.model, 'encode_decode'):
            # As it predicts: heads of several outputs know which one that is.
            size = input.shape[2:]
            return self.model.encode_decode(input, [dict(img_shape=size, ori_shape=size)])
        return self.model(input, mode='tensor')


def _named(net: nn.Module) -> nn.Module:
    """Returns the network whose name a user knows."""
    return net.model if isinstance(net, _Logits) else net


def write_graph(
    net: nn.Module,
    example: Tensor,
    file: Path,
    outputs: list[str],
    free_size: bool,
    dynamo: bool,
    opset: int | None = None,
) -> None:
    """Writes a network by torch's exporter; see `export_onnx`.

    Raises:
        InputError: the exporter does not know it, or not that set of operators.
    """
    free = {0: 'n', 2: 'h', 3: 'w'} if free_size else {0: 'n'}
    if dynamo:
        dynamic = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
        options = dict(dynamo=True, dynamic_shapes=(dynamic,), external_data=False, verbose=False)
    else:
        options = dict(dynamic_axes={'input': free})
        if HAS_DYNAMO_ONNX:
            options['dynamo'] = False

    def export(opset: int | None) -> None:
        if opset is not None:
            options['opset_version'] = opset
        torch.onnx.export(
            net, (example,), str(file), input_names=['input'], output_names=outputs, **options
        )

    try:
        with free_sizes(net) if free_size else nullcontext():
            with_deformable(net, export, opset)
    except InputError:
        raise
    except Exception as error:
        # The exporters raise a class of their own for each kind of thing they do not know.
        raise InputError(f'{UNWRITTEN} ({_reason(error)})') from error
    if opset is not None and opset != opset_of(file):
        raise InputError(
            f'this exporter cannot write opset {opset} of this model, but {opset_of(file)}: say '
            f'another, or --no-dynamo for an older one'
        )


def _telling(failures: list[str]) -> str:
    """Returns what went wrong where one of the exporters came furthest."""
    return next((f for f in failures if not f.startswith(UNWRITTEN)), failures[0])


def _reason(error: BaseException) -> str:
    """Returns the first line of what was wrong in the first place; the rest is how it came out."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _differences(net: nn.Module, inputs: list[Tensor], graph: Graph | None) -> list[float | None]:
    """Returns how far a written graph is from the network, for each input; None without a runtime.

    Raises:
        InputError: it is too far, or cannot be run.
    """
    if graph is None:
        return [None]
    found: list[float | None] = []
    for images in inputs:
        with torch.no_grad():
            ours = _as_tuple(net(images))
        worst = largest_difference(graph(images), ours)
        if not worst <= TOLERANCE:
            height, width = images.shape[2:]
            raise InputError(
                f'{graph.runtime} differs from torch by {worst:.1e} of the largest value, for '
                f'images of {height}x{width}'
            )
        found.append(worst)
    return found


def _as_tuple(outputs: Tensor | tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
