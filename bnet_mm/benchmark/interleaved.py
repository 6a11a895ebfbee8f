"""Times of jobs that do the same, taken in turn: what disturbs a machine then disturbs all."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """One job's times over another's, round by round.

    Attributes:
        median: of the rounds' ratios.
        low, high: their quartiles.
    """

    median: float
    low: float
    high: float


def interleave(
    jobs: dict[str, Callable[[], object]], rounds: int, device: torch.device | str = 'cpu'
) -> dict[str, list[float]]:
    """Runs every job once a round, in an order that rotates, and returns their times in seconds.

    Args:
        jobs: name -> what to time.
        rounds: how often; one more round before them is not counted.
        device: where the jobs compute; a GPU is waited for.
    """
    times = {name: [] for name in jobs}
    names = list(jobs)
    collected = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds + 1):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                _wait(device)
                start = time.perf_counter()
                jobs[name]()
                _wait(device)
                if turn:
                    times[name].append(time.perf_counter() - start)
            gc.collect()
    finally:
        if collected:
            gc.enable()
    return times


def ratio(times: list[float], of: list[float]) -> Ratio:
    """Returns the ratios of times that were taken in the same rounds."""
    ratios = sorted(a / b for a, b in zip(times, of, strict=True))
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return Ratio(median, low, high)


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
