"""Saves and loads folded OpenMMLab models: tensors, and plain text that describes the modules."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.checkpoint import contents_of, read_checkpoint, write_checkpoint
from bnet_mm.deploy.plain_config import as_text, config_of_text, config_text, from_text
from bnet_mm.deploy.restructure import restructure
from bnet_mm.deploy.structure import Fusion
from bnet_mm.errors import InputError, program
from bnet_mm.kernels.versions import assign_state_dict
from bnet_mm.openmmlab.models import build_model

ENTRY = 'bnet_mm_deploy'
FORMAT = 1
SINCE = {'split', 'plain', 'centred'}  # parts of the description that older files do not have


def save(model: nn.Module, path: str | Path, force: bool = False) -> Path:
    """Writes a model that `fuse` returned, whole or not at all; `load` reads it.

    Args:
        model: a folded OpenMMLab model with its config in `model.cfg`; `model.dataset_meta` is
            kept, if there is one.
        path: a `.pth`, `.pt` or `.safetensors` file.
        force: whether a file that is there may be replaced.

    Returns:
        The file.

    Raises:
        InputError: the model is not folded or has no config, the config does not build it or cannot
            be kept as plain text, or the file cannot be written.
    """
    fusion, cfg = getattr(model, 'fusion', None), getattr(model, 'cfg', None)
    if not isinstance(fusion, Fusion):
        raise InputError(f'{type(model).__name__} is not folded: save what fuse() returns')
    if not isinstance(cfg, Config):
        raise InputError(
            f'{type(model).__name__} has no config: set model.cfg, from which load() builds it'
        )
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    # Older versions read what has no part that they do not know.
    description = {k: v for k, v in asdict(fusion).items() if v or k not in SINCE}
    meta = {
        'format': FORMAT,
        'config': config_text(cfg),
        'dataset_meta': as_text(getattr(model, 'dataset_meta', None), 'dataset_meta'),
        'fusion': as_text(description, 'fusion'),
    }
    if _kinds(_rebuilt(meta, state)) != _kinds(model):
        raise InputError(
            f'{type(model).__name__} was changed after it was built: its config builds other '
            f'modules'
        )
    return write_checkpoint({'meta': {ENTRY: meta}, 'state_dict': state}, path, force)


def load(path: str | Path, device: str | torch.device = 'cpu') -> nn.Module:
    """Returns the folded model in `path`, in evaluation mode, ready for inference.

    It has `cfg` and `dataset_meta`, as the libraries' own `init_detector`, `init_model`,
    `init_recognizer` and `get_model` set them, and the library's scope becomes the default one: it
    can be given to `inference_detector` and its like. Nothing in the file is run: it holds tensors
    and text, and the text may name nothing but what the library has registered.

    Raises:
        InputError: there is no such file, it was not written by `save`, it is damaged, its library
            is not installed, or it asks for something that is not registered.
    """
    try:
        contents = contents_of(read_checkpoint(path))
        meta = contents.meta.get(ENTRY)
        if not isinstance(meta, dict):
            raise InputError(f'it is not a folded model: {program("deploy")} writes these')
        if meta.get('format') != FORMAT:
            raise InputError(f'its format is {meta.get("format")!r}, this version reads {FORMAT}')
        # Copies: what was read is mapped from the file, which may change.
        model = _rebuilt(meta, {name: value.clone() for name, value in contents.state.items()})
    except InputError as error:
        raise InputError(f'{path} cannot be loaded: {error}') from error
    init_default_scope(model.cfg.default_scope)
    return model.to(device)


def _kinds(model: nn.Module) -> dict[str, type]:
    # Statistics over all processes are those of one process at inference.
    return {n: type(m) for n, m in model.named_modules() if not isinstance(m, _BatchNorm)}


def _rebuilt(meta: dict, state: dict[str, Tensor]) -> nn.Module:
    cfg = config_of_text(meta.get('config'))
    fusion = _fusion_of(meta.get('fusion'))
    try:
        model = revert_sync_batchnorm(build_model(cfg))
    except InputError:
        raise
    except Exception as error:
        # The libraries check their arguments in many ways.
        reason = str(error).strip().split('\n')[0][:200]
        raise InputError(f'its config builds no model ({reason})') from error
    restructure(model, fusion)
    try:
        assign_state_dict(model, state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).split('\n')]
        raise InputError(f'its tensors are not those of its config ({lines[-1][:200]})') from error
    model.fusion, model.cfg = fusion, cfg
    model.dataset_meta = from_text(meta.get('dataset_meta'), 'dataset_meta')
    if cfg.default_scope == 'mmpretrain':
        # What its own inferencers ask for.
        model._config, model._dataset_meta = cfg, model.dataset_meta or {}
    model.eval()
    return model


def _fusion_of(text: object) -> Fusion:
    content = from_text(text, 'description')
    names = {field.name for field in fields(Fusion)}
    if not isinstance(content, dict) or not names - SINCE <= set(content) <= names:
        raise InputError('the description in the file is damaged')
    fusion = Fusion(**content)
    lists = [
        fusion.ends,
        fusion.split,
        fusion.centred,
        *(fusion.folded.values() if isinstance(fusion.folded, dict) else [None]),
    ]
    if not all(isinstance(n, list) and all(isinstance(s, str) for s in n) for n in lists):
        raise InputError('the description in the file is damaged')
    return fusion
