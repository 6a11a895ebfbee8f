"""Writes trained models as ONNX and compares what a runtime makes of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from bnet_mm.deploy.fusing import fuse
from bnet_mm.deploy.operators import check_operators, check_opset, opset_of
from bnet_mm.deploy.pooling import free_pooling
from bnet_mm.deploy.quantized import Cost, Photos, same_classes, same_values
from bnet_mm.deploy.runtimes import Graph
from bnet_mm.deploy.writing import check_packages, graph_file, graph_for, write_graph_file
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.openmmlab.models import build_model, load_model
from bnet_mm.openmmlab.running import input_channels, input_shape

# Largest difference of a value, relative to the largest value.
TOLERANCE = 1e-5
PROVED_ON = 224  # rows and columns, at most
WHOLE_MODELS = ('mmseg', 'mmpretrain')


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
    number of images is free. A segmentor gives `logits` `(N, classes, H, W)`, a classifier
    `(N, classes)`, a backbone its stages.

    Args:
        cfg: a whole config of an image model.
        checkpoint: its weights; None for the initial ones.
        out: the `.onnx` file, or with `runtime` 'openvino' its `.xml` file.
        part: 'model' (MMSegmentation, MMPretrain), or 'backbone' (any library).
        shape: height and width at which it is traced; the library's usual one by default.
        free_size: whether height and width may differ from `shape` later.
        dynamo: torch's present exporter, the default where it is (since torch 2.6); False for the
            one before it.
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
    channels = input_channels(net)
    # Exporters take sizes of 1 for constants.
    example = torch.randn(2, channels, height, width, generator=generator)
    with torch.no_grad():
        count = len(_as_tuple(net(example)))
    outputs = outputs or [f'stage{i}' for i in range(1, count + 1)]
    # Folded on a part of it: the proof keeps all maps in float64.
    folded = fuse(net, example[:1, :, :PROVED_ON, :PROVED_ON], plain=True)
    differences = []
    photos = None if int8 is None else Photos(int8, whole, channels, (height, width))
    judge = same_classes if isinstance(net, _Logits) else same_values

    def write_and_compare(file: Path) -> None:
        write_graph(folded, example, file, outputs, free_size, dynamo, opset)
        check_operators(file)
        graph = graph_for(out, file, runtime)
        sizes = [(1, height, width)]
        if free_size:
            sizes.append((3, height + 33, width + 31))
        for n, h, w in sizes:
            inputs = torch.randn(n, channels, h, w, generator=generator)
            difference = _difference(net, inputs, graph)
            if difference is not None and not difference <= TOLERANCE:
                fixed = (h, w) == (height, width)
                hint = '' if fixed else ': the model has no free size in ONNX, say --static'
                raise InputError(
                    f'{runtime} differs from torch by {difference:.1e} of the largest value, for '
                    f'images of {h}x{w}{hint}; nothing was written'
                )
            differences.append(difference)

    half_on = [example[:1]] if half else None
    cost = write_graph_file(out, write_and_compare, judge, runtime, photos, half_on)
    largest = None if None in differences else max(differences)
    size = None if free_size else (height, width)
    return Export(out, outputs, largest, cost=cost, size=size)


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


class _Logits(nn.Module):
    """A segmentor or classifier that takes images and gives logits, at a segmentor's image size."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.align_corners = getattr(getattr(model, 'decode_head', None), 'align_corners', False)

    def forward(self, input: Tensor) -> Tensor:
        logits = self.model(input, mode='tensor')
        if logits.dim() == 2:
            return logits
        size, align = input.shape[2:], self.align_corners
        return F.interpolate(logits, size=size, mode='bilinear', align_corners=align)


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
    if opset is not None:
        options['opset_version'] = opset
    try:
        with free_pooling(net) if free_size else nullcontext():
            torch.onnx.export(
                net, (example,), str(file), input_names=['input'], output_names=outputs, **options
            )
    except Exception as error:
        # The exporters raise a class of their own for each kind of thing they do not know.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        hint = ' Its pooling may need a fixed size: say --static.' if free_size else ''
        raise InputError(f'torch cannot export this model ({reason}).{hint}') from error
    if opset is not None and opset != opset_of(file):
        raise InputError(
            f'this exporter cannot write opset {opset} of this model, but {opset_of(file)}: say '
            f'another, or --no-dynamo for an older one'
        )


def _difference(net: nn.Module, inputs: Tensor, graph: Graph | None) -> float | None:
    if graph is None:
        return None
    try:
        theirs = graph(inputs)
    except InputError as error:
        raise InputError(
            f'{error}; nothing was written. If the model has no free size in ONNX, say --static'
        ) from error
    with torch.no_grad():
        ours = _as_tuple(net(inputs))
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(theirs, ours))


def _as_tuple(outputs: Tensor | tuple[Tensor, ...] | list[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
