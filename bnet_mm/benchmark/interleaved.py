"""Times jobs in turn, so that whatever slows the machine for a while slows all of them."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

import torch

Name = TypeVar('Name', bound=Hashable)


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of the ratios of two jobs' times, round by round."""

    median: float
    low: float
    high: float


def interleave(
    jobs: dict[Name, Callable[[], object]], rounds: int, device: torch.device | str = 'cpu'
) -> dict[Name, list[float]]:
    """Runs every job once a round, in an order that is drawn, and returns their times in seconds.

    What runs before a job decides what it finds in the caches, so that no job has always the same
    one before it. The draws are the same in every process.

    Args:
        jobs: what to time, by name.
        rounds: how often; one more round before them is not counted.
        device: where the jobs compute. Times on a GPU are taken by its own events.
    """
    timed = _timed_on_gpu if torch.device(device).type == 'cuda' else _timed_on_cpu
    times = {name: [] for name in jobs}
    names, draws = list(jobs), random.Random(0)
    collected = gc.isenabled()
    gc.disable()
    # Else each collection walks over all of torch, and the jobs after it find the caches empty.
    gc.collect()
    gc.freeze()
    try:
        for turn in range(rounds + 1):
            for name in draws.sample(names, len(names)):
                seconds = timed(jobs[name], device)
                if turn:
                    times[name].append(seconds)
            gc.collect()
    finally:
        gc.unfreeze()
        if collected:
            gc.enable()
    return times


def ratio(times: list[float], baseline: list[float]) -> Ratio:
    """Returns the ratios of times that were taken in the same rounds."""
    ratios = [a / b for a, b in zip(times, baseline)]
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return Ratio(median, low, high)


def _timed_on_cpu(job: Callable[[], object], _) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _timed_on_gpu(job: Callable[[], object], device: torch.device | str) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The GPU is kept busy until everything is queued: else the time of a small feature map
        # would be that of the Python code that launches its kernels.
        torch.cuda._sleep(4_000_000)
        start.record()
        job()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
