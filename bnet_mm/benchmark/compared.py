"""Speed and memory of the models that are compared, taken in one interleaved run."""

from collections.abc import Sequence
from contextlib import suppress

import torch
from mmengine.config import Config
from torch import nn

from bnet_mm.benchmark.interleaved import interleave, ratio
from bnet_mm.benchmark.layers import saved_bytes
from bnet_mm.benchmark.models import forward_job
from bnet_mm.deploy import fuse
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import config_errors
from bnet_mm.openmmlab.models import build_model
from bnet_mm.openmmlab.running import clip_frames

ROUNDS = 5


def measure(
    cfgs: Sequence[Config], shape: tuple[int, int], device: str, rounds: int = ROUNDS
) -> list[dict[str, float]]:
    """Measures the forward pass before and after deployment, and the memory of the backbone.

    Args:
        cfgs: whole configs; the first one is what the others are compared with.
        shape: height and width of the image.
        device: 'cpu' or 'cuda'.
        rounds: how often each is timed.

    Returns:
        for each config `seconds` and `deployed_seconds` (medians), `ratio` and `deployed_ratio` to
        the first model (not deployed), with their quartiles `..._low` and `..._high`, and `memory`:
        the bytes that the training backbone keeps for its backward pass, for one image. Those of
        deployment are missing where a model cannot be folded.

    Raises:
        InputError: a model cannot run on an image alone.
    """
    jobs, memory = {}, []
    for i, cfg in enumerate(cfgs):
        with config_errors():
            model = build_model(cfg, device)
        jobs[i, ''] = forward_job(model, cfg, shape, device)
        # What cannot be folded is timed as it is, and says so by what is missing.
        with suppress(InputError):
            jobs[i, 'deployed_'] = forward_job(fuse(model, shape=shape), cfg, shape, device)
        memory.append(_backbone_memory(model, shape, device))
    times = interleave(jobs, rounds, device)
    measured = [{'memory': kept} for kept in memory]
    for (i, state), of_job in times.items():
        compared = ratio(of_job, times[0, ''])
        measured[i] |= {
            f'{state}seconds': sorted(of_job)[rounds // 2],
            f'{state}ratio': compared.median,
            f'{state}ratio_low': compared.low,
            f'{state}ratio_high': compared.high,
        }
    return measured


def _backbone_memory(model: nn.Module, shape: tuple[int, int], device: str) -> int:
    network = getattr(model, 'backbone', model)
    network.train()
    x = torch.zeros(clip_frames(network), 3, *shape, device=device)
    try:
        return saved_bytes(network, x, input_gradient=False)
    finally:
        network.eval()
