"""What the parts of a checkpoint are: the weights, and what stands beside them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bnet_mm.errors import InputError

# Where trainers put the weights: OpenMMLab and the authors, torchvision's and CIFAR trainings.
STATES = ('state_dict', 'model', 'net')
TRAINING = 'state of the training'
COPY = 'a second copy of the weights (EMA)'
BESIDE = {
    **dict.fromkeys(
        ('optimizer', 'optimizers', 'opt', 'param_schedulers', 'lr_scheduler'), TRAINING
    ),
    **dict.fromkeys(('scheduler', 'amp_scaler', 'scaler', 'loss_scaler', 'message_hub'), TRAINING),
    **dict.fromkeys(('epoch', 'iter', 'iteration', 'args', 'arch', 'version', 'metric'), TRAINING),
    **dict.fromkeys(('best_prec1', 'best_acc', 'best_acc1', 'best_top1', 'acc', 'prec'), TRAINING),
    **dict.fromkeys(('ema_state_dict', 'state_dict_ema', 'model_ema'), COPY),
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
    """
    if not isinstance(checkpoint, dict):
        raise InputError(
            f'the checkpoint holds a {type(checkpoint).__name__}, where a dict of named tensors '
            f'is needed'
        )
    name = next((name for name in STATES if isinstance(checkpoint.get(name), dict)), None)
    state = checkpoint if name is None else checkpoint[name]
    meta = checkpoint.get('meta') if name is not None else None
    tensors, dropped, unexplained = {}, {}, []
    # mmdet 2.x wrote averaged weights into the state dict, each name with 'ema_' before it.
    copies = {f'ema_{key.replace(".", "_")}' for key in state if isinstance(key, str)}
    for key, value in state.items():
        if key in copies:
            dropped[key] = COPY
        elif isinstance(value, Tensor) and isinstance(key, str):
            tensors[key] = _checked(key, value)
        elif name is None and key in BESIDE:
            dropped[key] = BESIDE[key]
        else:
            unexplained.append(str(key))
    if not tensors:
        raise InputError(
            'the checkpoint holds no tensors by name: it is no state dict of a network'
        )
    if name is not None:
        for key in checkpoint:
            if key in BESIDE:
                dropped[key] = BESIDE[key]
            elif key not in (name, 'meta'):
                unexplained.append(str(key))
    return Contents(tensors, meta if isinstance(meta, dict) else {}, dropped, unexplained)


def _checked(name: str, value: Tensor) -> Tensor:
    value = value.detach()
    if value.layout is not torch.strided or value.is_meta or value.is_quantized:
        raise InputError(
            f'{name} is no plain tensor of numbers: this is no state dict of a network'
        )
    # More values than bytes: an `expand`, which a few bytes of file could make larger than memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(
            f'{name} claims {value.numel()} values where the file holds '
            f'{value.untyped_storage().nbytes()} bytes: the checkpoint is damaged or hostile'
        )
    return value
