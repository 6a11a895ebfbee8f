"""Examines each BNET of a model: what it is, how it will train, and what usually goes wrong."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from bnet_mm.checkpoint.inspection import energy_outside_centre
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.models.finding import find_blocks
from bnet_mm.openmmlab.config import pretrained_sources
from bnet_mm.openmmlab.leftovers import frozen_by_stages, norm_warnings
from bnet_mm.openmmlab.libraries import config_errors
from bnet_mm.openmmlab.models import build_model, load_model
from bnet_mm.openmmlab.norm_cfg import norm_specs
from bnet_mm.openmmlab.running import example_input, recorded, run_model


@dataclass(frozen=True)
class NormFacts:
    """One BNET.

    Attributes:
        name: the module's.
        type: its class.
        k, dilation: of its kernel.
        position: 'A', 'B' or 'C' in a residual block (paper, table 10), '-' elsewhere.
        trainable: whether kernel and bias are trained.
        group: index of its optimizer group; None where no group has it.
        weight_decay, lr: of that group, for the kernel.
        frozen: whether its statistics stay as they are while the model trains.
        from_dirac: share of the kernels' energy outside the centre taps; 0 is plain batch norm.
        path: how its forward is computed.
    """

    name: str
    type: str
    k: int
    dilation: int
    position: str
    trainable: bool
    group: int | None
    weight_decay: float | None
    lr: float | None
    frozen: bool
    from_dirac: float
    path: str


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        norms: every BNET.
        others: class -> number of the other norms.
        warnings: a sentence each.
    """

    norms: list[NormFacts]
    others: dict[str, int]
    warnings: list[str]


def examine(cfg: Config, checkpoint: str | None = None) -> Examination:
    """Builds the model and the optimizer of `cfg` and looks at every norm.

    Args:
        cfg: a whole config; see `bnet_mm.engine.config`.
        checkpoint: weights to load; without them the model has its initial weights, and nothing is
            downloaded.

    Raises:
        InputError: the config or the checkpoint cannot be used.
    """
    model = build_model(cfg) if checkpoint is None else load_model(cfg, checkpoint)[0]
    with config_errors():
        uncalled = _uncalled(model, cfg)
        optimizer = _optimizer(model, cfg)
    model.train()  # norm_eval and frozen_stages take effect here
    groups = _groups(optimizer)
    positions = _positions(model)
    norms, others = [], Counter()
    for name, module in named_norms(model):
        if isinstance(module, EnhancedNorm):
            norms.append(_facts(name, module, positions.get(name, '-'), groups))
        else:
            others[type(module).__name__] += 1
    others.update(type(m).__name__ for m in model.modules() if isinstance(m, nn.LayerNorm))
    leftovers = [*filter(None, [frozen_by_stages(model, cfg.model)])]
    leftovers += norm_warnings(model, cfg.model)
    warnings = list(_warnings(cfg, norms, checkpoint is not None, uncalled, leftovers))
    return Examination(norms, dict(others), warnings)


def _optimizer(model: nn.Module, cfg: Config) -> torch.optim.Optimizer | None:
    if not cfg.get('optim_wrapper'):
        return None
    wrapper = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}  # AMP's asks for a GPU
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)
    with OPTIM_WRAPPER_CONSTRUCTORS.switch_scope_and_registry(cfg.get('default_scope')):
        return build_optim_wrapper(model, wrapper).optimizer


def _groups(optimizer: torch.optim.Optimizer | None) -> dict[int, tuple[int, dict]]:
    """Returns the group of each parameter, by the parameter's id."""
    if optimizer is None:
        return {}
    return {
        id(parameter): (i, group)
        for i, group in enumerate(optimizer.param_groups)
        for parameter in group['params']
    }


def _positions(model: nn.Module) -> dict[str, str]:
    return {name: letter for block in find_blocks(model) for letter, name in block.norms.items()}


def _facts(
    name: str, module: EnhancedNorm, position: str, groups: dict[int, tuple[int, dict]]
) -> NormFacts:
    group, options = groups.get(id(module.dw.weight), (None, {}))
    return NormFacts(
        name=name,
        type=type(module).__name__,
        k=module.k,
        dilation=module.dilation,
        position=position,
        trainable=module.dw.weight.requires_grad and module.dw.bias.requires_grad,
        group=group,
        weight_decay=options.get('weight_decay'),
        lr=options.get('lr'),
        frozen=not module.norm.training,
        from_dirac=energy_outside_centre(module.dw.weight),
        path=_path(module),
    )


def _path(module: EnhancedNorm) -> str:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    layer = copy.deepcopy(module).to(device)
    probe = torch.zeros(2, module.num_features, 16, 16, device=device)
    return f'{device}: {layer.computed_by(probe)}'


def _uncalled(model: nn.Module, cfg: Config) -> list[str] | None:
    """Returns the BNETs that a forward pass does not reach; None where none can be run."""
    names = [name for name, _ in named_norms(model, EnhancedNorm)]
    try:
        with torch.no_grad(), recorded(model, names) as reached:
            run_model(model, example_input(model, (64, 64), cfg))
    except InputError:
        raise
    except Exception:
        # Some models want more than an image; then nothing is said of what they reach.
        return None
    return [name for name in names if name not in reached]


def _warnings(
    cfg: Config,
    norms: list[NormFacts],
    loaded: bool,
    uncalled: list[str] | None,
    leftovers: list[str],
) -> Iterator[str]:
    specs = norm_specs(cfg._cfg_dict.to_dict())
    asked = [where for where, _, spec in specs if issubclass(spec.layer, EnhancedNorm)]
    if asked and not norms:
        yield (
            f'{asked[0]} says BNET and no norm of the model is one: the part it belongs to does '
            f'not read it; set model.backbone.norm_cfg'
        )
    if not asked and not norms:
        yield 'no BNET is asked for: set model.backbone.norm_cfg=dict(type="BNET", k=5)'
    outside = [n.name for n in norms if n.group is None and n.trainable]
    if outside and cfg.get('optim_wrapper'):
        yield f'{_some(outside)}: in no optimizer group, and never trained'
    yield from leftovers
    if not loaded and norms and all(n.from_dirac == 0 for n in norms) and not _has_weights(cfg):
        yield (
            'every kernel is at Dirac and no pretrained weights are named: the training starts '
            'from random weights'
        )
    synchronized = [n.name for n in norms if n.type == 'SyncBNET']
    if synchronized and int(os.environ.get('WORLD_SIZE', 1)) == 1:
        yield (
            f'{_some(synchronized)}: synchronized statistics, and this is one process: here they '
            f'act as BNET'
        )
    if cfg.get('sync_bn') == 'mmcv' and norms:
        yield "sync_bn='mmcv' is refused by BNET when processes are there: say sync_bn='torch'"
    if uncalled:
        yield (
            f'{_some(uncalled)}: not reached by a forward pass; DistributedDataParallel needs '
            f'find_unused_parameters=True'
        )


def _has_weights(cfg: Config) -> bool:
    return bool(cfg.get('load_from')) or any(pretrained_sources(cfg.model))


def _some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
