"""The parts of a checkpoint: the weights, the metadata, and what is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bnet_mm.checkpoint.prefixes import below
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import storage_of

# Where trainings put the weights: OpenMMLab's and the authors', torchvision's, CIFAR's, a plain
# PyTorch loop's.
STATES = ('state_dict', 'model', 'net', 'model_state_dict', 'model_state', 'weights', 'params')
# A second copy of the weights, averaged over the training.
COPIES = ('state_dict_ema', 'model_ema', 'ema_state_dict', 'model_ema_state_dict', 'ema')
COPY = 'a second copy of the weights (EMA)'
TRAINING = 'state of the training'
BESIDE = {
    TRAINING: {
        *('optimizer', 'optimizers', 'opt', 'param_schedulers', 'lr_scheduler', 'scheduler'),
        *('amp_scaler', 'scaler', 'loss_scaler', 'message_hub', 'epoch', 'iter', 'iteration'),
        *('args', 'arch', 'version', 'metric', 'best_prec1', 'best_acc', 'best_acc1', 'best_top1'),
        *('acc', 'prec', 'step', 'loss', 'config', 'hparams', 'amp', 'grad_scaler'),
        *('optimizer_state_dict', 'scheduler_state_dict', 'lr_scheduler_state_dict'),
        # PyTorch Lightning's bookkeeping.
        *('global_step', 'pytorch-lightning_version', 'loops', 'callbacks', 'optimizer_states'),
        *('lr_schedulers', 'hparams_name', 'hyper_parameters', 'datamodule_hyper_parameters'),
        *('datamodule_hparams_name', 'native_amp_scaling_state', 'MixedPrecision'),
    },
    COPY: {*COPIES},
}
# Of torch's averaged models, and of OpenMMLab's.
COUNTERS = ('n_averaged', 'steps')
# No training nests its dictionaries deeper.
DEPTH = 32
# What stands before a name of the copy that lies among the weights: mmdet 2.x also wrote '_' for
# each '.' in it.
AMONG = ('ema_', 'ema.', 'ema_model.', 'model_ema.')


@dataclass(frozen=True)
class Contents:
    """A checkpoint, taken apart.

    Attributes:
        state: the weights, by the names they have in the file; those of nested dictionaries have
            the keys of these before them, unless there is just one with tensors.
        meta: what OpenMMLab writes beside them: classes, config, versions.
        dropped: other entries and why they are not needed.
        unexplained: entries whose purpose is not known.
    """

    state: dict[str, Tensor]
    meta: dict
    dropped: dict[str, str]
    unexplained: list[str]


def contents_of(checkpoint: object, prefix: str = '', averaged: bool = False) -> Contents:
    """Takes apart what `read_checkpoint` returned.

    Args:
        checkpoint: a state dict, or dictionaries around one or several, nested to any depth.
        prefix: takes the tensors below it alone, and off their names: 'student.backbone.'. What
            wrappers put into names ('module.', '_orig_mod.') may be left out of it.
        averaged: takes the averaged copy of the weights, wherever a training has put it.

    Raises:
        InputError: it holds no named tensors, or one that cannot be a network's; nothing below
            the prefix, or no averaged copy.

    Examples:
        >>> contents = contents_of({'state_dict': {'fc.bias': torch.zeros(2)}, 'epoch': 12})
        >>> list(contents.state), contents.dropped
        (['fc.bias'], {'epoch': 'state of the training'})
        >>> pair = {'student': {'fc.bias': torch.ones(2)}, 'teacher': {'fc.bias': torch.zeros(2)}}
        >>> list(contents_of(pair).state), list(contents_of(pair, 'teacher.').state)
        (['student.fc.bias', 'teacher.fc.bias'], ['fc.bias'])
    """
    if not isinstance(checkpoint, dict):
        raise InputError(
            f'the checkpoint holds a {type(checkpoint).__name__}, where a dict of named tensors '
            f'is needed'
        )
    where, state = _weights(checkpoint, averaged)
    beside = [] if where is None else [key for key in checkpoint if key not in (where, 'meta')]
    dropped: dict[str, str] = {}
    unexplained: list[str] = []
    tensors: dict[str, Tensor] = {}
    for key, value in _flat(state, unexplained if where else beside).items():
        tensors[key] = _checked(key, value)
    if not tensors:
        raise InputError(
            'the checkpoint holds no tensors by name: it is not a state dict of a network'
        )
    copies = _copies(tensors)
    if averaged and copies:
        tensors = {**tensors, **{name: tensors[copy] for copy, name in copies.items()}}
    elif averaged and where not in COPIES and not _averages_are_the_weights(checkpoint):
        raise InputError(
            f'the checkpoint has no averaged copy of the weights: it would be an entry '
            f"{' or '.join(COPIES[:3])}, or tensors whose names begin with 'ema_'"
        )
    for copy in copies:
        del tensors[copy]
        dropped[copy] = COPY
    for counter in [key for key in tensors if key in COUNTERS]:
        del tensors[counter]
        dropped[counter] = TRAINING
    for key in beside:
        reason = next((reason for reason, keys in BESIDE.items() if key in keys), None)
        if key in STATES and where in COPIES:
            reason = 'the weights that are not averaged'
        if reason:
            dropped[key] = reason
        else:
            unexplained.append(str(key))
    if prefix:
        kept = below(tensors, prefix)
        dropped.update({key: f'not below {prefix}' for key in tensors if key not in kept})
        tensors = {name: tensors[key] for key, name in kept.items()}
    meta = None if where is None else checkpoint.get('meta')
    return Contents(tensors, meta if isinstance(meta, dict) else {}, dropped, unexplained)


def _weights(checkpoint: dict, averaged: bool) -> tuple[str | None, dict]:
    """Returns the entry that holds the weights, or None for the whole, and what is in it."""
    names: tuple[str, ...] = STATES
    if averaged and not _averages_are_the_weights(checkpoint):
        names = (*COPIES, *STATES)
    for name in names:
        if isinstance(checkpoint.get(name), dict):
            return name, checkpoint[name]
    return None, checkpoint


def _averages_are_the_weights(checkpoint: dict) -> bool:
    """Tells OpenMMLab's files: what was averaged is their `state_dict`, the rest the copy."""
    copy = checkpoint.get('ema_state_dict')
    return isinstance(copy, dict) and 'steps' in copy


def _flat(state: dict, others: list[str]) -> dict[str, Tensor]:
    """Returns the tensors of nested dictionaries; `others` takes the keys of what has none."""
    groups = list(_groups(state, (), others, {id(state)}))
    if len(groups) == 1:
        return groups[0][1]
    return {'.'.join((*path, name)): t for path, tensors in groups for name, t in tensors.items()}


def _groups(
    state: dict, path: tuple[str, ...], others: list[str], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yields each dictionary that holds tensors by name, and where; none twice."""
    beside = {key for keys in BESIDE.values() for key in keys}
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor) and isinstance(k, str)}
    if tensors:
        yield path, tensors
    for key, value in state.items():
        if isinstance(key, str) and key in tensors:
            continue
        inside = []
        searched = isinstance(value, dict) and isinstance(key, str) and key not in beside
        if searched and id(value) not in seen and len(path) < DEPTH:
            seen.add(id(value))
            inside = list(_groups(value, (*path, key), [], seen))
        if inside:
            yield from inside
        else:
            others.append('.'.join((*path, str(key))))


def _copies(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Returns the names of averaged tensors among the weights, with those that they average."""
    copies = {}
    for name in tensors:
        for start in AMONG:
            for copy in (start + name, start + name.replace('.', '_')):
                if copy in tensors:
                    copies[copy] = name
    return copies


def _checked(name: str, value: Tensor) -> Tensor:
    value = value.detach()
    if value.layout is not torch.strided or value.is_meta or value.is_quantized:
        raise InputError(
            f'{name} is not a plain tensor of numbers: this is not a state dict of a network'
        )
    # More values than bytes: an `expand`, which a few bytes of file could make larger than memory.
    if value.numel() * value.element_size() > storage_of(value).nbytes():
        raise InputError(
            f'{name} claims {value.numel()} values where the file holds '
            f'{storage_of(value).nbytes()} bytes: the checkpoint is damaged or hostile'
        )
    return value
