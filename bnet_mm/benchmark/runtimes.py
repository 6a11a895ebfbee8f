"""Deployed networks in the runtimes that people deploy to, in float32 and in 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from bnet_mm.benchmark.interleaved import interleave
from bnet_mm.benchmark.models import ModelRow, model_rows
from bnet_mm.benchmark.peers import BN, OURS, model_with, moved
from bnet_mm.deploy import fuse
from bnet_mm.deploy.onnx import write_graph
from bnet_mm.deploy.openvino_files import write_openvino
from bnet_mm.deploy.quantized import quantize, same_values
from bnet_mm.deploy.runtimes import read_graph
from bnet_mm.deploy.writing import check_packages
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.models.placement import enhance

TORCH = 'torch'


def in_runtimes(
    name: str,
    sizes: Sequence[int],
    shape: tuple[int, int, int, int],
    runtimes: Sequence[str],
    int8: bool,
    rounds: int,
    frozen: Sequence[str] = (),
) -> list[ModelRow]:
    """Measures a torchvision classifier, folded, by torch and in each runtime, on the CPU.

    All kernel sizes are timed in one interleaved run for each runtime, with torch's number of
    threads.
    Each runtime's baseline is the folded network with batch norm in it. OpenVINO is given ONNX, and
    files of its own.

    Args:
        name: of the classifier, which gets BNET at the paper's position.
        sizes: kernel sizes.
        shape: N, 3, H, W of the images.
        runtimes: of `bnet_mm.deploy.runtimes.RUNTIMES`.
        int8: whether it is timed in 8 bits, too.
        rounds: how often each is timed.
        frozen: names of stages whose kernels are as at the start, zero around the centre.

    Raises:
        InputError: torchvision has no such classifier, or a runtime is not installed.
    """
    from torchvision.models import get_model, list_models

    if name not in list_models():
        raise InputError(f'torchvision has no model {name!r}; resnet18 and resnet50 are two it has')
    check_packages(HAS_DYNAMO_ONNX)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    jobs: dict[str, dict] = {}
    with TemporaryDirectory() as folder:
        for peer, k in [(BN, sizes[0]), *((OURS, k) for k in sizes)]:
            network = model_with(peer, moved(enhance(get_model(name), k=k), frozen)).eval()
            folded = fuse(network, image[:1], plain=True)
            jobs.setdefault(TORCH, {})[peer, k] = partial(_by_torch, folded, image)
            file = Path(folder) / f'{peer}_{k}.onnx'
            pair = image.repeat(2, 1, 1, 1)  # exporters take a size of 1 for a constant
            write_graph(folded, pair, file, ['logits'], free_size=False, dynamo=HAS_DYNAMO_ONNX)
            for runtime in runtimes:
                jobs.setdefault(runtime, {})[peer, k] = _in_runtime(file, runtime, image)
                if runtime == 'openvino':
                    own = file.with_suffix('.xml')
                    write_openvino(file, own)
                    task = f'{runtime}, own file'
                    jobs.setdefault(task, {})[peer, k] = _in_runtime(own, runtime, image)
                if int8:
                    small = file.with_name(f'{file.stem}_{runtime}.onnx')
                    quantize(file, small, [image], same_values, runtime)
                    task = f'{runtime}, 8 bits'
                    jobs.setdefault(task, {})[peer, k] = _in_runtime(small, runtime, image)
        # Each by itself: threads of another runtime that wait busily would take time of these.
        times = {task: interleave(of_task, rounds) for task, of_task in jobs.items()}
    return [
        row
        for task, of_task in times.items()
        for row in model_rows(
            of_task,
            *(sizes, (BN, OURS), {}),
            model=', '.join([name, *(f'{part} frozen' for part in frozen)]),
            task=task,
            memory_format='contiguous',
        )
    ]


@torch.no_grad()
def _by_torch(model: nn.Module, image: torch.Tensor) -> None:
    model(image)


def _in_runtime(file: Path, runtime: str, image: torch.Tensor) -> Callable[[], object]:
    compute = read_graph(file, runtime, torch.get_num_threads()).compute
    return partial(compute, image.numpy())
