"""The forward pass of configs' models, before and after deployment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import median

import torch
from mmengine.config import Config
from torch import nn

from bnet_mm.benchmark.interleaved import interleave, ratio
from bnet_mm.benchmark.layers import saved_bytes
from bnet_mm.benchmark.models import DEPLOYED, ModelRow, model_rows, models_to_measure
from bnet_mm.benchmark.peers import BN, OURS, TWO_LINES, moved
from bnet_mm.deploy import fuse
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.openmmlab.libraries import check_library, config_errors
from bnet_mm.openmmlab.models import build_model
from bnet_mm.openmmlab.norm_cfg import check_norms
from bnet_mm.openmmlab.running import clip_frames, example_input, input_shape, run_model

ROUNDS = 5


def inference(
    cfg: Config,
    name: str,
    sizes: Sequence[int],
    shape: tuple[int, int] | None,
    formats: Sequence[str],
    rounds: int,
    device: str = 'cpu',
) -> list[ModelRow]:
    """Measures one config's model with each norm, all of them in one interleaved run.

    Args:
        cfg: a whole config of any OpenMMLab library whose model has BNET.
        name: what to call it.
        sizes: kernel sizes, in the place of the config's own.
        shape: height and width of the image; None for the library's usual one.
        formats: keys of `FORMATS`.
        rounds: how often each is timed.
        device: where.

    Raises:
        InputError: the model has no BNET, or cannot run on an image alone.
    """
    check_library(cfg.get('default_scope'))
    check_norms(cfg.model)
    shape = shape or input_shape(cfg)
    rows = []
    for memory_format in formats:
        jobs = {}
        for peer, k, model in models_to_measure(
            lambda k: moved(_with_size(cfg, k, device)), sizes, memory_format, device
        ):
            jobs[peer, k] = _forward(model, cfg, shape, device)
            if peer != TWO_LINES:
                jobs[peer + DEPLOYED, k] = _forward(fuse(model, shape=shape), cfg, shape, device)
        rows += model_rows(
            interleave(jobs, rounds, device),
            sizes,
            (BN, BN + DEPLOYED, OURS, OURS + DEPLOYED, TWO_LINES),
            memory={},
            model=name,
            task='inference',
            memory_format=memory_format,
        )
    return rows


def compare_configs(
    cfgs: Sequence[Config], shape: tuple[int, int], device: str, rounds: int = ROUNDS
) -> list[dict[str, float]]:
    """Measures several configs' models, and the memory of their backbones in training.

    Args:
        cfgs: whole configs; the first one is the baseline.
        shape: height and width of the image.
        device: 'cpu' or 'cuda'.
        rounds: how often each is timed.

    Returns:
        For each config `seconds` and `deployed_seconds` (medians), `ratio` and `deployed_ratio` to
        the baseline (not deployed), with their quartiles `..._low` and `..._high`, and `memory`:
        the bytes that the training backbone keeps for its backward pass, for one image. Those of
        deployment are missing where a model cannot be folded.

    Raises:
        InputError: a model cannot run on an image alone.
    """
    jobs, measured = {}, []
    for i, cfg in enumerate(cfgs):
        with config_errors():
            model = moved(build_model(cfg, device))
        jobs[i, ''] = _forward(model, cfg, shape, device)
        with suppress(InputError):
            jobs[i, 'deployed_'] = _forward(fuse(model, shape=shape), cfg, shape, device)
        measured.append({'memory': _backbone_memory(model, shape, device)})
    times = interleave(jobs, rounds, device)
    for (i, state), of_job in times.items():
        over = ratio(of_job, times[0, ''])
        measured[i][f'{state}seconds'] = median(of_job)
        measured[i][f'{state}ratio'] = over.median
        measured[i][f'{state}ratio_low'] = over.low
        measured[i][f'{state}ratio_high'] = over.high
    return measured


def _forward(
    model: nn.Module, cfg: Config, shape: tuple[int, int], device: str
) -> Callable[[], None]:
    def forward() -> None:
        with torch.no_grad(), torch.device(device):
            run_model(model, example_input(model, shape, cfg))

    return forward


def _with_size(cfg: Config, k: int, device: str) -> nn.Module:
    """Builds a config's model with kernels of another size."""
    with config_errors():
        model = build_model(cfg, device)
    norms = list(named_norms(model, EnhancedNorm))
    if not norms:
        raise InputError('the model has no BNET: set model.backbone.norm_cfg=dict(type="BNET")')
    for name, norm in norms:
        new = type(norm)(norm.num_features, k=k, dilation=norm.dilation)
        new.norm.load_state_dict(norm.norm.state_dict())
        model.set_submodule(name, new.eval())
    return model


def _backbone_memory(model: nn.Module, shape: tuple[int, int], device: str) -> int:
    network = getattr(model, 'backbone', model)
    network.train()
    x = torch.zeros(clip_frames(network), 3, *shape, device=device)
    try:
        return saved_bytes(network, x, input_gradient=False)
    finally:
        network.eval()
