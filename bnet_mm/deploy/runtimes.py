"""The runtimes in which a written graph is compared with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from bnet_mm.errors import InputError


def run_graph(file: Path, inputs: Tensor, runtime: str = 'onnxruntime') -> list[Tensor] | None:
    """Returns what a runtime makes of a file's only input, on the CPU, in float32.

    Args:
        file: ONNX.
        inputs: of the shape that the graph takes.
        runtime: one of `RUNTIMES`.

    Returns:
        the outputs in order; None where onnxruntime, the default, is not installed.

    Raises:
        InputError: the runtime cannot run the graph, or another one is not installed.
    """
    try:
        run = RUNTIMES[runtime](file)
    except ImportError as error:
        if runtime == 'onnxruntime':
            return None
        raise InputError(f'{runtime} is not installed: pip install {runtime}') from error
    except Exception as error:  # the runtimes have a class for each kind of failure, and no base
        raise InputError(f'{runtime} cannot read the graph ({_reason(error)})') from error
    try:
        found = run(inputs.numpy())
    except Exception as error:
        raise InputError(
            f'{runtime} cannot run the graph for images of {inputs.shape[2]}x{inputs.shape[3]} '
            f'({_reason(error)}); nothing was written. A model with pooling to fixed numbers of '
            f'cells has no free size in ONNX: say --static'
        ) from error
    return [torch.from_numpy(np.array(part)) for part in found]


def _onnxruntime(file: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    return lambda image: session.run(None, {'input': image})


def _openvino(file: Path) -> Callable[[np.ndarray], list[np.ndarray]]:
    import openvino

    # By default it computes in bfloat16 where the processor can.
    options = {'INFERENCE_PRECISION_HINT': 'f32'}
    model = openvino.Core().compile_model(str(file), 'CPU', options)
    return lambda image: list(model(image).values())


def _reason(error: Exception) -> str:
    return ' '.join(str(error).split())[:200]


RUNTIMES: dict[str, Callable[[Path], Callable[[np.ndarray], list[np.ndarray]]]] = {
    'onnxruntime': _onnxruntime,
    'openvino': _openvino,
}
