"""Whole networks: the rows of their times, and a training step of a torchvision classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

import torch
from torch import nn

from bnet_mm.benchmark.interleaved import Ratio, interleave, ratio
from bnet_mm.benchmark.layers import FORMATS, saved_bytes
from bnet_mm.benchmark.peers import BN, OURS, TWO_LINES, model_with
from bnet_mm.errors import InputError
from bnet_mm.models.placement import enhance

DEPLOYED = ' deployed'


@dataclass(frozen=True)
class ModelRow:
    """One measurement of a whole network.

    Attributes:
        model: its name.
        task: 'training step', 'inference', or the runtime in which a deployed one is run.
        k: kernel size.
        memory_format: 'contiguous' or 'channels_last'.
        peer: whose time this is: 'BN', 'BNET' or 'two lines', with ' deployed'.
        seconds: median time.
        over_bn: times over those of the network with batch norm, not deployed; both are in a
            runtime.
        over_bn_deployed: the same over the deployed one; None for a training step, or a runtime.
        memory: bytes kept for the backward pass (on a GPU: the peak); None for inference.
    """

    model: str
    task: str
    k: int
    memory_format: str
    peer: str
    seconds: float
    over_bn: Ratio
    over_bn_deployed: Ratio | None
    memory: int | None


def models_to_measure(
    build: Callable[[int], nn.Module], sizes: Sequence[int], memory_format: str, device: str
) -> Iterator[tuple[str, int, nn.Module]]:
    """Yields peer, kernel size and a model for each job; batch norm for the first size alone.

    Args:
        build: returns a model with BNET of a kernel size.
        sizes: kernel sizes.
        memory_format: of the models, a key of `FORMATS`.
        device: of the models.
    """
    to = dict(device=device, memory_format=FORMATS[memory_format])
    for k in sizes:
        start = build(k)
        for peer in (OURS, TWO_LINES, BN) if k == sizes[0] else (OURS, TWO_LINES):
            yield peer, k, model_with(peer, start).to(**to)


def model_rows(
    times: dict, sizes: Sequence[int], peers: Sequence[str], memory: dict, **what: str
) -> list[ModelRow]:
    """Returns a row for each kernel size and peer.

    Args:
        times: seconds of each round, by peer and kernel size.
        sizes, peers: in their order.
        memory: bytes, by peer and kernel size, where they were counted.
        what: the other attributes of the rows.
    """
    rows = []
    baseline, deployed = times[BN, sizes[0]], times.get((BN + DEPLOYED, sizes[0]))
    for k, peer in product(sizes, peers):
        job = (peer, k if (peer, k) in times else sizes[0])
        rows.append(
            ModelRow(
                k=k,
                peer=peer,
                seconds=median(times[job]),
                over_bn=ratio(times[job], baseline),
                over_bn_deployed=deployed and ratio(times[job], deployed),
                memory=memory.get(job),
                **what,
            )
        )
    return rows


def training_step(
    name: str,
    sizes: Sequence[int],
    shape: tuple[int, int, int, int],
    formats: Sequence[str],
    rounds: int,
    device: str = 'cpu',
) -> list[ModelRow]:
    """Measures forward, backward and SGD's step of a torchvision classifier, for each norm.

    All kernel sizes and peers of a memory format are timed in one interleaved run.

    Args:
        name: of the model, which gets BNET at the paper's position.
        sizes: kernel sizes.
        shape: N, 3, H, W of the images.
        formats: keys of `FORMATS`.
        rounds: how often each is timed.
        device: where.

    Raises:
        InputError: torchvision has no classifier of that name.
    """
    from torchvision.models import get_model, list_models

    if name not in list_models():
        raise InputError(f'torchvision has no model {name!r}; resnet18 and resnet50 are two it has')
    rows = []
    for memory_format in formats:
        jobs, memory = {}, {}
        x = torch.randn(shape, device=device).contiguous(memory_format=FORMATS[memory_format])
        target = torch.arange(len(x), device=device)
        for peer, k, model in models_to_measure(
            lambda k: enhance(get_model(name), k=k).train(), sizes, memory_format, device
        ):
            jobs[peer, k] = step = _step(model, x, target)
            memory[peer, k] = _training_memory(model, x, step, device)
        rows += model_rows(
            *(interleave(jobs, rounds, device), sizes, (BN, OURS, TWO_LINES), memory),
            model=name,
            task='training step',
            memory_format=memory_format,
        )
    return rows


def _step(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step


def _training_memory(model, x, step: Callable[[], None], device: str) -> int:
    if torch.device(device).type != 'cuda':
        return saved_bytes(model, x)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device)
