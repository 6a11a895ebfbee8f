"""Builds the model of a config, and loads a checkpoint into it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from bnet_mm.checkpoint import Contents, adapt, contents_of, load_state, read_checkpoint
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import LIBRARIES, check_library, config_errors
from bnet_mm.openmmlab.norm_cfg import check_norms
from bnet_mm.text import without_prefix


def build_model(cfg: Config, device: str | torch.device = 'cpu') -> nn.Module:
    """Returns the model of a config, in evaluation mode and with initial weights.

    Args:
        cfg: a whole config of any OpenMMLab library.
        device: where its tensors are, 'meta' for none.

    Raises:
        InputError: the config has no model, its library is missing, or it cannot be built.
    """
    if not cfg.get('model'):
        raise InputError('the config has no model')
    scope = cfg.get('default_scope')
    check_library(scope)
    check_norms(cfg.model)
    with config_errors(), torch.device(device), MODELS.switch_scope_and_registry(scope) as registry:
        model = registry.build(deepcopy(cfg.model))  # mmseg writes into what it is built from
    model.eval()
    return model


def load_model(
    cfg: Config, checkpoint: str | Path, strict: bool = True, part: str = ''
) -> tuple[nn.Module, Contents]:
    """Returns the model of a config with the weights of a checkpoint, and what the file holds.

    The model is in evaluation mode on the CPU, its synchronized norms are plain ones, and names
    are translated (see `bnet_mm.checkpoint.adapt`).

    Args:
        cfg: a whole config of an OpenMMLab library.
        checkpoint: the trained weights.
        strict: whether the checkpoint must have every tensor of the model and no others; otherwise
            it must have any.
        part: the part of the model that is wanted, 'backbone' for example; what lies outside of it
            may be missing or left over.

    Raises:
        InputError: one of the two cannot be used, or the checkpoint is not of this config.
    """
    scope = cfg.get('default_scope')
    if scope not in LIBRARIES:
        raise InputError(f'the config is of no OpenMMLab library: default_scope is {scope!r}')
    contents = contents_of(read_checkpoint(checkpoint))
    model = revert_sync_batchnorm(build_model(cfg))
    state = {without_prefix(name, 'module.'): value for name, value in contents.state.items()}
    load_state(model, dict(adapt(state, model)), checkpoint, 'config', strict, part)
    model.eval()
    return model, contents
