"""Times a training step of each arm, and of what batch norm could have for BNET-5's time."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from bnet_mm.benchmark.interleaved import interleave, ratio
from bnet_mm.errors import InputError
from bnet_study.classification import MOMENTUM, precision
from bnet_study.plan import ARM, Plan, Run
from bnet_study.starts import start_net

BASELINE, DEARER = 'bn', 'bnet5'
# Channels of `wide`, over those of the network: of 16, one more for each 1 / 16.
WIDTHS = (1.0625, 1.125, 1.1875, 1.25, 1.375, 1.5)


def time_steps(plan: Plan, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Times a training step of every arm of a plan's classifications from scratch.

    Args:
        plan: which has `bn` on each network that is timed.
        device: where steps are computed; nothing else should be.
        rounds: how often each step is taken, in turn.

    Returns:
        for each task, network and arm, and for `bn` of several widths, or with a block more in a
        stage: `task`, `net`, `arm`, and the medians of `seconds` and of `ratio`, to `bn`'s of the
        same round.

    Raises:
        InputError: the plan has no such runs.
    """
    places: dict[tuple[str, str], dict[str, Run]] = {}
    for run in plan.runs:
        if run.kind == 'classification' and run.start == 'scratch':
            places.setdefault((run.task, run.net), {}).setdefault(run.arm, run)
    places = {place: arms for place, arms in places.items() if BASELINE in arms}
    if not places:
        raise InputError(f'the plan has no classification from scratch with arm {BASELINE}')
    found = []
    for (task, net), arms in places.items():
        jobs = {arm: _step(run.config, device) for arm, run in arms.items()}
        for width in WIDTHS:
            wider = {**arms[BASELINE].config, 'arm': {**ARM, 'width': width}}
            jobs[f'{BASELINE} x {width}'] = _step(wider, device)
        stages = len(arms[BASELINE].config['net']['blocks'])
        for stage in range(stages):
            more = [int(i == stage) for i in range(stages)]
            deeper = {**arms[BASELINE].config, 'arm': {**ARM, 'more_blocks': more}}
            jobs[f'{BASELINE} + a block in stage {stage + 1}'] = _step(deeper, device)
        times = interleave(jobs, rounds, device)
        for arm, seconds in times.items():
            over = ratio(seconds, times[BASELINE]).median
            found.append(
                dict(task=task, net=net, arm=arm, seconds=median(seconds), ratio=round(over, 4))
            )
    return found


def _step(config: dict[str, Any], device: torch.device) -> Callable[[], None]:
    task = config['task']
    net = start_net(config, 0, 10, None).to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, MOMENTUM)
    size = task['train_size']
    x = torch.randn(task['batch'], 3, size, size, device=device)
    x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (task['batch'],), device=device)

    def step() -> None:
        with precision(device):
            loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
