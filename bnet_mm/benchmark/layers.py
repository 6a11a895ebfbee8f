"""One layer, forward and backward, at the maps where BNET stands."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from bnet_mm.benchmark.interleaved import Ratio, interleave, ratio
from bnet_mm.benchmark.peers import BN, OURS, TWO_LINES, layer

# Position C of a ResNet-50's four stages, two images of 1333x800 (paper, section 4.1).
DETECTION_SITES = ((2, 256, 200, 334), (2, 512, 100, 167), (2, 1024, 50, 84), (2, 2048, 25, 42))
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
# Maps that batch norm's two passes each way read or write at the least: three and five.
PASSES = 8
COPY = 'copy'


@dataclass(frozen=True)
class LayerRow:
    """One measurement.

    Attributes:
        shape: N, C, H, W of the map.
        k: kernel size.
        memory_format: 'contiguous' or 'channels_last'.
        bn: plain batch norm's median time in seconds, forward and backward.
        bnet, two_lines: the others' times over batch norm's.
        limit: over batch norm's time, what moving batch norm's bytes takes at the speed of a copy.
        saved: bytes kept for the backward pass, over batch norm's, of BNET.
        saved_two_lines: the same, of the two lines.
    """

    shape: tuple[int, int, int, int]
    k: int
    memory_format: str
    bn: float
    bnet: Ratio
    two_lines: Ratio
    limit: float
    saved: float
    saved_two_lines: float


def layer_costs(
    shapes: tuple[tuple[int, int, int, int], ...],
    sizes: tuple[int, ...],
    formats: tuple[str, ...],
    rounds: int,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> Iterator[LayerRow]:
    """Yields a row for each map, kernel size and memory format, measured in one interleaved run.

    Args:
        shapes: maps, N, C, H, W.
        sizes: kernel sizes.
        formats: keys of `FORMATS`.
        rounds: how often each is timed.
        device, dtype: of the maps.
    """
    for memory_format in formats:
        for shape in shapes:
            for k in sizes:
                yield _row(shape, k, memory_format, rounds, device, dtype)


def _row(shape, k, memory_format, rounds, device, dtype) -> LayerRow:
    x, grad = (
        torch.randn(shape, device=device, dtype=dtype).contiguous(
            memory_format=FORMATS[memory_format]
        )
        for _ in range(2)
    )
    target = torch.empty_like(x)
    layers = {peer: layer(peer, shape[1], k).to(device) for peer in (BN, TWO_LINES, OURS)}
    if dtype in (torch.float16, torch.bfloat16):
        layers[TWO_LINES].bnconv.to(dtype)  # torch's convolution wants one type for all
    jobs = {peer: _step(module, x, grad) for peer, module in layers.items()}
    jobs[COPY] = lambda: target.copy_(x)
    times = interleave(jobs, rounds, device)
    saved = {peer: saved_bytes(module, x) for peer, module in layers.items()}
    copies = ratio(times[COPY], times[BN]).median
    return LayerRow(
        shape=tuple(shape),
        k=k,
        memory_format=memory_format,
        bn=sorted(times[BN])[rounds // 2],
        bnet=ratio(times[OURS], times[BN]),
        two_lines=ratio(times[TWO_LINES], times[BN]),
        limit=copies * PASSES / 2,
        saved=saved[OURS] / saved[BN],
        saved_two_lines=saved[TWO_LINES] / saved[BN],
    )


def _step(module: nn.Module, x: torch.Tensor, grad: torch.Tensor):
    def step() -> None:
        leaf = x.detach().requires_grad_()
        module(leaf).backward(grad)
        module.zero_grad()

    return step


def saved_bytes(module: nn.Module, *inputs: torch.Tensor, input_gradient: bool = True) -> int:
    """Returns the bytes that autograd keeps between a module's forward and backward pass.

    Counted once for each storage, parameters and buffers of the module left out.

    Args:
        module: what runs.
        inputs: its arguments.
        input_gradient: whether their gradient is wanted, as inside a network; for a whole one,
            whose first stages may be frozen, it is not.
    """
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    inputs = [x.detach().requires_grad_(input_gradient) for x in inputs]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(*inputs)
    return sum(storage.nbytes() for storage in storages.values())
