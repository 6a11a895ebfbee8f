"""One layer, forward and backward, on the feature maps where BNET stands."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

import torch
from torch import Tensor, nn

from bnet_mm.benchmark.interleaved import Ratio, interleave, ratio
from bnet_mm.benchmark.peers import BN, COMPILED, OURS, TWO_LINES, layer
from bnet_mm.kernels.versions import storage_of
from bnet_mm.text import without_prefix

# Position C of a ResNet-50's four stages, two images of 1333x800 (paper, section 4.1).
DETECTION_SITES = ((2, 256, 200, 334), (2, 512, 100, 167), (2, 1024, 50, 84), (2, 2048, 25, 42))
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
# How often batch norm reads or writes a feature map at the least. Training: statistics and output
# (3), both passes of the backward (5). Frozen statistics: output (2), one pass of the backward (3).
# Evaluation: one reading, one writing, as a copy.
PASSES = {'training': 8, 'frozen': 5, 'evaluation': 2}
COPY = 'copy'


# Maps from one pixel to those of detectors, of few channels and of many, of one image and of many.
GRID = (
    *((32, 512, 1, 1), (16, 32, 4, 4), (1, 2048, 7, 7), (8, 512, 7, 7), (32, 512, 7, 7)),
    *((1, 1024, 14, 14), (8, 256, 14, 14), (16, 64, 14, 14), (4, 96, 20, 30), (8, 128, 28, 28)),
    *((2, 512, 25, 42), (1, 256, 56, 56), (8, 64, 56, 56), (1, 32, 112, 112), (8, 16, 112, 112)),
    *((1, 16, 336, 336), (2, 64, 200, 334)),
)


@dataclass(frozen=True)
class LayerRow:
    """One measurement.

    Attributes:
        mode: 'training', forward and backward; 'frozen', the same with running statistics; or
            'evaluation', forward alone.
        dtype: type of the feature map, 'float32' for example.
        shape: its N, C, H, W.
        k: kernel size.
        memory_format: 'contiguous' or 'channels_last'.
        bn: median time of plain batch norm in seconds.
        bnet, two_lines, two_lines_compiled: the others' times over it; None where not measured.
        limit: over batch norm's time, what moving its bytes takes at the speed of a copy.
        saved, saved_two_lines: bytes kept for the backward pass, over batch norm's; None in
            evaluation.
    """

    mode: str
    dtype: str
    shape: tuple[int, int, int, int]
    k: int
    memory_format: str
    bn: float
    bnet: Ratio
    two_lines: Ratio
    two_lines_compiled: Ratio | None
    limit: float
    saved: float | None
    saved_two_lines: float | None

    @property
    def over_peer(self) -> float:
        """BNET's time over that of the faster of the two lines."""
        return self.bnet.median / min(
            peer.median for peer in (self.two_lines, self.two_lines_compiled) if peer
        )


def layer_costs(
    shapes: Sequence[tuple[int, int, int, int]],
    sizes: Sequence[int],
    formats: Sequence[str],
    rounds: int,
    device: str = 'cpu',
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    modes: Sequence[str] = ('training',),
    compiled: bool = False,
) -> Iterator[LayerRow]:
    """Yields a row for each choice, whose peers are measured in one interleaved run.

    Args:
        shapes: of feature maps, N, C, H, W.
        sizes: kernel sizes.
        formats: keys of `FORMATS`.
        rounds: how often each is timed.
        device, dtypes: of the feature maps.
        modes: keys of `PASSES`.
        compiled: whether to measure the two lines compiled by `torch.compile`, too.
    """
    for mode, dtype, memory_format, shape, k in product(modes, dtypes, formats, shapes, sizes):
        x, grad = (
            torch.randn(shape, device=device, dtype=dtype).contiguous(
                memory_format=FORMATS[memory_format]
            )
            for _ in range(2)
        )
        backward = mode != 'evaluation'
        layers = {
            peer: layer(peer, shape[1], k).to(device).train(mode == 'training')
            for peer in (BN, TWO_LINES, OURS)
        }
        if dtype.itemsize == 2:
            layers[TWO_LINES].bnconv.to(dtype)  # torch's convolution wants one type for all
        jobs = {peer: _job(module, x, grad, backward) for peer, module in layers.items()}
        if compiled and (job := _compiled(layers[TWO_LINES], x, grad, backward)):
            jobs[COMPILED] = job
        target = torch.empty_like(x)
        times = interleave({**jobs, COPY: lambda t=target, x=x: t.copy_(x)}, rounds, device)
        ratios = {name: ratio(of_job, times[BN]) for name, of_job in times.items()}
        kept = {p: saved_bytes(module, x) for p, module in layers.items()} if backward else None
        yield LayerRow(
            mode=mode,
            dtype=without_prefix(str(dtype), 'torch.'),
            shape=tuple(shape),
            k=k,
            memory_format=memory_format,
            bn=median(times[BN]),
            bnet=ratios[OURS],
            two_lines=ratios[TWO_LINES],
            two_lines_compiled=ratios.get(COMPILED),
            limit=ratios[COPY].median * PASSES[mode] / 2,
            saved=kept and kept[OURS] / kept[BN],
            saved_two_lines=kept and kept[TWO_LINES] / kept[BN],
        )


def _job(module: nn.Module, x: Tensor, grad: Tensor, backward: bool) -> Callable[[], None]:
    def evaluate() -> None:
        with torch.no_grad():
            module(x)

    def train() -> None:
        leaf = x.detach().requires_grad_()
        module(leaf).backward(grad)
        module.zero_grad()

    return train if backward else evaluate


def _compiled(
    module: nn.Module, x: Tensor, grad: Tensor, backward: bool
) -> Callable[[], None] | None:
    torch._dynamo.reset()
    job = _job(torch.compile(module, dynamic=False), x, grad, backward)
    try:
        job()
    except Exception as error:  # the compiler's many kinds; the other peers are still wanted
        reason = f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'
        warnings.warn(f'the two lines are not measured compiled: {reason}', stacklevel=3)
        return None
    return job


def saved_bytes(module: nn.Module, *inputs: Tensor, input_gradient: bool = True) -> int:
    """Returns the bytes that autograd keeps between a module's forward and backward pass.

    Each storage counts once; the module's parameters and buffers do not.

    Args:
        module: what runs.
        inputs: its arguments.
        input_gradient: whether their gradient is wanted, as inside a network; for a whole one,
            whose first stages may be frozen, it is not.
    """
    own = {storage_of(t).data_ptr() for t in (*module.parameters(), *module.buffers())}
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = storage_of(tensor)
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    inputs = [x.detach().requires_grad_(input_gradient) for x in inputs]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(*inputs)
    return sum(storage.nbytes() for storage in storages.values())
