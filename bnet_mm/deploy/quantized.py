"""An ONNX graph in 8 bits, by a runtime's own static quantization, and what that costs."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
from torch import Tensor, nn

from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.pictures import SUFFIXES, preprocessed, read_image, resized
from bnet_mm.openmmlab.running import as_frames

if TYPE_CHECKING:
    import onnx

MOST = 128  # photos that the ranges are taken from

# What has weights, and what hands maps on between two of these.
LAYERS = {'Conv', 'ConvTranspose', 'Gemm', 'MatMul'}
CARRIERS = {
    *('Add', 'AveragePool', 'Clip', 'Concat', 'Flatten', 'Gelu', 'GlobalAveragePool'),
    *('HardSigmoid', 'HardSwish', 'Identity', 'LeakyRelu', 'MaxPool', 'Mul', 'Pad'),
    *('ReduceMean', 'Relu', 'Reshape', 'Resize', 'Sigmoid', 'Slice', 'Split', 'Squeeze'),
    *('Transpose', 'Unsqueeze'),
}
OF_ALL_INPUTS = {'Add', 'Concat', 'MatMul', 'Mul'}

# Of outputs in float32 and in 8 bits: the share that found the same, and by how much they differ.
Judge = Callable[[Sequence[Tensor], Sequence[Tensor]], 'tuple[float | None, float]']


@dataclass(frozen=True)
class Cost:
    """What became of the outputs in fewer bits.

    Attributes:
        photos: on how many images; in 8 bits these are the photos that the ranges were taken from.
        same: share of what was found that is found again: of photos by class, of a segmentor's
            pixels, of detections; None of a backbone.
        error: mean difference of the first output, relative to its mean magnitude; of detections,
            of their scores.
        bits: of the weights.
    """

    photos: int
    same: float | None
    error: float
    bits: int = 8


class Photos(Sequence[Tensor]):
    """The photos of a folder as a model takes them, each read when it is asked for.

    Args:
        folder: with photos, at any depth; of more than 128 the first by name.
        model: an OpenMMLab model, whose preprocessor counts.
        channels: of its images.
        size: their height and width.

    Shape:
        each is `(1, channels, H, W)`; of a network that shifts between frames, a clip of them.

    Raises:
        InputError: there is no such folder, or no photo in it.
    """

    def __init__(self, folder: str | Path, model: nn.Module, channels: int, size: tuple[int, int]):
        self.paths = photos_in(folder)
        self.model, self.channels, self.size = model, channels, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        image = resized(read_image(self.paths[index], self.channels), self.size)
        return as_frames(self.model, preprocessed(image, self.model))


def photos_in(folder: str | Path) -> list[Path]:
    """Returns the photos in a folder, in the order of their names, 128 at most.

    Raises:
        InputError: there is no such folder, or no photo in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'{folder} is not a folder: name one with photos to take the ranges from')
    found = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f'{folder} has no photo, from which the ranges of 8 bits are taken')
    return found[:MOST]


def same_classes(before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[float, float]:
    """Judges outputs whose second dimension scores classes."""
    same = (before[0].argmax(1) == after[0].argmax(1)).float().mean().item()
    return same, same_values(before, after)[1]


def same_values(before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[None, float]:
    """Judges outputs of which nothing is known."""
    return None, ((before[0] - after[0]).abs().mean() / before[0].abs().mean()).item()


def quantize(
    file: Path,
    out: Path,
    images: Sequence[Tensor],
    judge: Judge,
    runtime: str = 'onnxruntime',
) -> Cost:
    """Writes a graph with weights and maps in 8 bits, and compares it with the one in float32.

    The last convolutions, whose outputs are coordinates or scores of pixels, and what follows the
    last layers (the postprocessing of detections) stay in float32.

    Args:
        file: the graph in float32.
        out: the file to write.
        images: preprocessed photos `(1, C, H, W)`, from which the ranges of the maps are taken.
        judge: compares the outputs.
        runtime: 'onnxruntime', by its `quantize_static`, or 'openvino', by NNCF.

    Raises:
        InputError: the graph cannot be quantized, or a package is not installed.
    """
    try:
        # What they print of their progress is no part of a tool's answer.
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter('ignore')
            QUANTIZERS[runtime](file, out, images)
    except ImportError as error:
        package = {'openvino': 'nncf'}.get(runtime, runtime)
        raise InputError(f'8 bits need {package}: pip install {package} ({error})') from error
    except InputError:
        raise
    except Exception as error:  # they have no class of their own for what they do not know
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
        raise InputError(f'{runtime} cannot quantize this graph ({reason})') from error
    return cost_of(file, out, images, judge, runtime)


def cost_of(
    file: Path, out: Path, images: Sequence[Tensor], judge: Judge, runtime: str, bits: int = 8
) -> Cost:
    """Compares a graph in fewer bits, `out`, with the one that it was made of.

    Args:
        file, out, images, judge, runtime: as for `quantize`.
        bits: of the weights of `out`.
    """
    whole, small = read_graph(file, runtime), read_graph(out, runtime)
    found = [judge(whole(image), small(image)) for image in images]
    same = [part for part, _ in found if part is not None]
    errors = [error for _, error in found]
    return Cost(len(images), float(np.mean(same)) if same else None, float(np.mean(errors)), bits)


def nodes_in_8_bits(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of the layers of a graph and of what lies between them.

    A convolution is among them where another layer follows, a fully connected layer always: of
    this the output can stay in float32.

    Args:
        graph: each of its nodes has a name.
    """
    made_by = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in LAYERS]
    found = {node.name for node in layers if 'Conv' not in node.op_type}
    seen: set[str] = set()
    left = list(layers)
    while left:
        node = left.pop()
        for name in node.input if node.op_type in OF_ALL_INPUTS else node.input[:1]:
            before = made_by.get(name)
            if before is None or before.op_type not in LAYERS | CARRIERS:
                continue
            found.add(before.name)
            if before.name not in seen and before.op_type in CARRIERS:
                seen.add(before.name)
                left.append(before)
    return sorted(found)


def _named(file: Path) -> onnx.ModelProto:
    """Reads a graph, names each of its nodes and makes tensors of those that are constants.

    NNCF looks for the tensors among the initializers alone.
    """
    import onnx

    model = onnx.load(str(file))
    constants = [node for node in model.graph.node if node.op_type == 'Constant']
    for node in constants:
        value = node.attribute[0]
        if value.type == onnx.AttributeProto.TENSOR:
            value.t.name = node.output[0]
            model.graph.initializer.append(value.t)
            model.graph.node.remove(node)
    for index, node in enumerate(model.graph.node):
        node.name = f'{index}_{node.op_type}'
    return model


def _by_onnxruntime(file: Path, out: Path, images: Sequence[Tensor]) -> None:
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict | None:
            image = next(self.left, None)
            return None if image is None else {'input': image.numpy()}

    prepared = out.with_name(f'{out.name}.prepared')
    try:
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        model = _named(prepared)
        onnx.save(model, str(prepared))
        quantize_static(
            *(str(prepared), str(out), Reader()),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Maps without a sign: x86 multiplies them by signed weights three times as fast.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=nodes_in_8_bits(model.graph),
            extra_options={'OpTypesToExcludeOutputQuantization': ['Gemm', 'MatMul']},
        )
    finally:
        prepared.unlink(missing_ok=True)


def _by_nncf(file: Path, out: Path, images: Sequence[Tensor]) -> None:
    import nncf
    import onnx

    nncf.set_log_level(logging.ERROR)
    model = _named(file)
    wanted = set(nodes_in_8_bits(model.graph))
    others = [node.name for node in model.graph.node if node.name not in wanted]
    small = nncf.quantize(
        model,
        nncf.Dataset(images, lambda image: {'input': image.numpy()}),
        preset=nncf.QuantizationPreset.MIXED,  # SiLU has values below zero, too
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )
    onnx.save(small, str(out))


QUANTIZERS: dict[str, Callable[[Path, Path, Sequence[Tensor]], None]] = {
    'onnxruntime': _by_onnxruntime,
    'openvino': _by_nncf,
}
