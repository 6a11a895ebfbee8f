"""The runtimes in which a written graph is run: compared with the model, or put in its place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from bnet_mm.errors import InputError

GRAPHS = ('.onnx', '.xml')  # the last for OpenVINO alone


@dataclass(frozen=True)
class Graph:
    """A file that a runtime has read.

    Attributes:
        runtime: its name.
        size: height and width of the images it takes; None where they are free.
        outputs: names of what it gives.
        compute: from the array of the only input to those of the outputs.
    """

    runtime: str
    size: tuple[int, int] | None
    outputs: list[str]
    compute: Callable[[np.ndarray], list[np.ndarray]]

    def __call__(self, inputs: Tensor) -> list[Tensor]:
        """Returns the outputs on the CPU.

        Raises:
            InputError: the runtime cannot run the graph for images of this size.
        """
        try:
            found = self.compute(inputs.cpu().numpy())
        except Exception as error:  # the runtimes have a class for each failure, and no base
            height, width = inputs.shape[2:]
            hint = '' if self.size is None else f'; its images are of {self.size[0]}x{self.size[1]}'
            raise InputError(
                f'{self.runtime} cannot run the graph for images of {height}x{width} '
                f'({_reason(error)}){hint}'
            ) from error
        return [torch.from_numpy(np.array(part)) for part in found]


def usual_runtime(file: str | Path) -> str:
    """Returns the runtime of a graph for which none is named."""
    return 'onnxruntime' if Path(file).suffix == '.onnx' else 'openvino'


def read_graph(file: str | Path, runtime: str = 'onnxruntime', threads: int | None = None) -> Graph:
    """Returns the graph of a file, to be computed on the CPU in float32 where it is not in 8 bits.

    Args:
        file: ONNX, or OpenVINO's own `.xml`.
        runtime: one of `RUNTIMES`.
        threads: how many it may use; as many as it likes by default.

    Raises:
        InputError: the runtime is not installed, or cannot read the file.
    """
    try:
        return RUNTIMES[runtime](str(file), threads)
    except ImportError as error:
        raise InputError(f'{runtime} is not installed: pip install {runtime}') from error
    except Exception as error:  # the runtimes have a class for each kind of failure, and no base
        raise InputError(f'{runtime} cannot read {file} ({_reason(error)})') from error


def graph_to_compare(file: Path, runtime: str) -> Graph | None:
    """Returns the graph of a file; None where onnxruntime, the default, is not installed."""
    if runtime == 'onnxruntime':
        try:
            __import__(runtime)
        except ImportError:
            return None
    return read_graph(file, runtime)


def _onnxruntime(file: str, threads: int | None) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Threads that wait busily would take the time of whatever runs next: torch, or another graph.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    shape = [side if isinstance(side, int) else None for side in session.get_inputs()[0].shape]
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    return Graph(
        'onnxruntime', _size(shape), outputs, lambda image: session.run(None, {name: image})
    )


def _openvino(file: str, threads: int | None) -> Graph:
    import openvino

    # By default it computes in bfloat16 where the processor can.
    options: dict = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    model = openvino.Core().compile_model(file, 'CPU', options)
    shape = [side.get_length() if side.is_static else None for side in model.input().partial_shape]
    outputs = [output.any_name for output in model.outputs]
    request = model.create_infer_request()
    return Graph(
        'openvino', _size(shape), outputs, lambda image: list(request.infer([image]).values())
    )


def _size(shape: list[int | None]) -> tuple[int, int] | None:
    height, width = shape[2:]
    return None if height is None or width is None else (height, width)


def _reason(error: Exception) -> str:
    # OpenVINO names the lines of its own source first, and what it lacks last.
    lacking = re.search(r'No conversion rule found for operations: (.+)', str(error))
    if lacking:
        return f'it does not know {lacking[1].strip()}'
    words = re.sub(r"(Exception from|Check '[^']*' failed at) \S+", '', str(error)).split()
    return ' '.join(words)[:200]


RUNTIMES: dict[str, Callable[[str, int | None], Graph]] = {
    'onnxruntime': _onnxruntime,
    'openvino': _openvino,
}
