"""Whole networks: a training step, and inference before and after deployment."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import nn

from bnet_mm.benchmark.interleaved import Ratio, interleave, ratio
from bnet_mm.benchmark.layers import FORMATS, saved_bytes
from bnet_mm.benchmark.peers import BN, OURS, TWO_LINES, model_with
from bnet_mm.deploy import fuse
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm
from bnet_mm.models.placement import enhance
from bnet_mm.openmmlab.libraries import check_library, config_errors
from bnet_mm.openmmlab.models import build_model
from bnet_mm.openmmlab.norm_cfg import check_norms
from bnet_mm.openmmlab.running import example_input, input_shape, run_model

DEPLOYED = 'deployed'


@dataclass(frozen=True)
class ModelRow:
    """One measurement of a whole network.

    Attributes:
        model: its name.
        task: 'training step' or 'inference'.
        k: kernel size.
        memory_format: 'contiguous' or 'channels_last'.
        peer: whose times these are, 'BN', 'BNET' or 'two lines', with ' deployed'.
        seconds: median time.
        over_bn: times over those of the network with batch norm, not deployed.
        over_bn_deployed: the same over the deployed one; None for a training step.
        memory: bytes kept for the backward pass (on a GPU: the peak); None for inference on a CPU.
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


def torchvision_model(name: str, k: int) -> nn.Module:
    """Returns a classifier of torchvision with BNET at the paper's position.

    Raises:
        InputError: torchvision has no classifier of that name.
    """
    from torchvision.models import get_model, list_models

    if name not in list_models():
        raise InputError(f'torchvision has no model {name!r}; resnet18 and resnet50 are two it has')
    return enhance(get_model(name), k=k)


def training_step(
    name: str,
    sizes: tuple[int, ...],
    shape: tuple[int, int, int, int],
    formats: tuple[str, ...],
    rounds: int,
    device: str = 'cpu',
) -> list[ModelRow]:
    """Measures forward, backward and SGD's step of a torchvision classifier, for each norm.

    All kernel sizes and peers of a memory format are timed in one interleaved run.

    Args:
        name: of the model.
        sizes: kernel sizes.
        shape: N, 3, H, W of the images.
        formats: keys of `FORMATS`.
        rounds: how often each is timed.
        device: where.
    """
    rows = []
    for memory_format in formats:
        jobs, memory = {}, {}
        x = torch.randn(shape, device=device).contiguous(memory_format=FORMATS[memory_format])
        target = torch.arange(len(x), device=device)
        for k in sizes:
            start = torchvision_model(name, k).train()
            for peer in (OURS, TWO_LINES, BN):
                key = (peer, k if peer != BN else None)
                if key in jobs:
                    continue
                model = model_with(peer, start).to(device, memory_format=FORMATS[memory_format])
                jobs[key] = _step(model, x, target)
                memory[key] = _training_memory(model, x, jobs[key], device)
        times = interleave(jobs, rounds, device)
        for k in sizes:
            for peer in (BN, OURS, TWO_LINES):
                key = (peer, k if peer != BN else None)
                rows.append(
                    ModelRow(
                        model=name,
                        task='training step',
                        k=k,
                        memory_format=memory_format,
                        peer=peer,
                        seconds=sorted(times[key])[rounds // 2],
                        over_bn=ratio(times[key], times[BN, None]),
                        over_bn_deployed=None,
                        memory=memory[key],
                    )
                )
    return rows


def inference(
    cfg: Config,
    name: str,
    sizes: tuple[int, ...],
    shape: tuple[int, int] | None,
    formats: tuple[str, ...],
    rounds: int,
    device: str = 'cpu',
) -> list[ModelRow]:
    """Measures the forward pass of a config's model, before and after deployment, for each norm.

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
        for k in sizes:
            with config_errors():
                start = _sized(build_model(cfg, device), k)
            for peer in (OURS, TWO_LINES, BN):
                key = (peer, k if peer != BN else None)
                if key in jobs:
                    continue
                model = model_with(peer, start).to(memory_format=FORMATS[memory_format])
                jobs[key] = forward_job(model, cfg, shape, device)
                if peer != TWO_LINES:
                    jobs[f'{peer} {DEPLOYED}', key[1]] = forward_job(
                        fuse(model, shape=shape), cfg, shape, device
                    )
        times = interleave(jobs, rounds, device)
        for k in sizes:
            for peer in (BN, f'{BN} {DEPLOYED}', OURS, f'{OURS} {DEPLOYED}', TWO_LINES):
                key = (peer, None if peer.startswith(f'{BN} ') or peer == BN else k)
                rows.append(
                    ModelRow(
                        model=name,
                        task='inference',
                        k=k,
                        memory_format=memory_format,
                        peer=peer,
                        seconds=sorted(times[key])[rounds // 2],
                        over_bn=ratio(times[key], times[BN, None]),
                        over_bn_deployed=ratio(times[key], times[f'{BN} {DEPLOYED}', None]),
                        memory=None,
                    )
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


def _sized(model: nn.Module, k: int) -> nn.Module:
    """Gives every BNET of a model, which all are at their start, kernels of another size."""
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, EnhancedNorm)]
    if not norms:
        raise InputError('the model has no BNET: set model.backbone.norm_cfg=dict(type="BNET")')
    for name, norm in norms:
        parent, _, child = name.rpartition('.')
        new = type(norm)(norm.num_features, k=k, dilation=norm.dilation)
        new.norm.load_state_dict(norm.norm.state_dict())
        setattr(model.get_submodule(parent), child, new.eval())
    return model


def forward_job(
    model: nn.Module, cfg: Config, shape: tuple[int, int], device: str
) -> Callable[[], None]:
    """Returns what runs a config's model once on an empty image of `shape`, to be timed."""

    def forward() -> None:
        with torch.no_grad(), torch.device(device):
            run_model(model, example_input(model, shape, cfg))

    return forward
