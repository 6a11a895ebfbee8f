"""The parts of a checkpoint: the weights, the metadata, and what is dropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import storage_of

# Where trainings put the weights: OpenMMLab's and the authors', torchvision's and CIFAR's.
STATES = ('state_dict', 'model', 'net')
COPY = 'a second copy of the weights (EMA)'
BESIDE = {
    'state of the training': {
        *('optimizer', 'optimizers', 'opt', 'param_schedulers', 'lr_scheduler', 'scheduler'),
        *('amp_scaler', 'scaler', 'loss_scaler', 'message_hub', 'epoch', 'iter', 'iteration'),
        *('args', 'arch', 'version', 'metric', 'best_prec1', 'best_acc', 'best_acc1', 'best_top1'),
        *('acc', 'prec'),
    },
    COPY: {'ema_state_dict', 'state_dict_ema', 'model_ema'},
}


@dataclass(frozen=True)
class Contents:
    """A checkpoint, taken apart.

    Attributes:
        state: the weights, by the names they have in the file.
        meta: what OpenMMLab writes beside them: classes, config, versions.
        dropped: other entries and why they are not needed.
        unexplained: entries whose purpose is not known.
    """

    state: dict[str, Tensor]
    meta: dict
    dropped: dict[str, str]
    unexplained: list[str]


def contents_of(checkpoint: object) -> Contents:
    """Takes apart what `read_checkpoint` returned.

    Raises:
        InputError: it holds no named tensors, or one that cannot be a network's.

    Examples:
        >>> contents = contents_of({'state_dict': {'fc.bias': torch.zeros(2)}, 'epoch': 12})
        >>> list(contents.state), contents.dropped
        (['fc.bias'], {'epoch': 'state of the training'})
    """
    if not isinstance(checkpoint, dict):
        raise InputError(
            f'the checkpoint holds a {type(checkpoint).__name__}, where a dict of named tensors '
            f'is needed'
        )
    where = next((name for name in STATES if isinstance(checkpoint.get(name), dict)), None)
    state = checkpoint if where is None else checkpoint[where]
    tensors: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    unexplained: list[str] = []
    beside = [] if where is None else [key for key in checkpoint if key not in (where, 'meta')]
    # mmdet 2.x wrote averaged weights into the state dict, each name with 'ema_' before it.
    copies = {f'ema_{key.replace(".", "_")}' for key in state if isinstance(key, str)}
    for key, value in state.items():
        if key in copies:
            dropped[key] = COPY
        elif isinstance(value, Tensor) and isinstance(key, str):
            tensors[key] = _checked(key, value)
        elif where is None:
            beside.append(key)
        else:
            unexplained.append(str(key))
    if not tensors:
        raise InputError(
            'the checkpoint holds no tensors by name: it is not a state dict of a network'
        )
    for key in beside:
        reason = next((reason for reason, keys in BESIDE.items() if key in keys), None)
        if reason:
            dropped[key] = reason
        else:
            unexplained.append(str(key))
    meta = None if where is None else checkpoint.get('meta')
    return Contents(tensors, meta if isinstance(meta, dict) else {}, dropped, unexplained)


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
