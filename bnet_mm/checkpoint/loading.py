"""Loads a checkpoint's tensors into a model, and says what does not belong together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from bnet_mm.errors import InputError


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str | Path,
    network: str = 'model',
    strict: bool = True,
    part: str = '',
) -> tuple[list[str], list[str]]:
    """Loads tensors under the names that `model` has for them (see `adapt`).

    Args:
        model: takes the tensors.
        state: names and tensors.
        source: what to call the checkpoint.
        network: what the model is of, 'config' for example.
        strict: whether every tensor of the model must be there, and no others; otherwise it must
            have any.
        part: the part of the model that must be there, and alone, with `strict`.

    Returns:
        Names of tensors that the model lacked, counters of batches aside, and of those that were
        left over.

    Raises:
        InputError: the checkpoint is not of this model, of which a part may have been loaded.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> load_state(model, {'bias': model.bias.detach()}, 'x.pth', strict=False)
        (['weight'], [])
    """
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(
            f'checkpoint {source} is not of this {network}: {str(error).splitlines()[-1].strip()}'
        ) from error
    # Counters of batches may be absent, and torch itself is of two minds whether they are missing.
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    tensors = [name for name in model.state_dict() if not name.endswith('num_batches_tracked')]
    if len(missing) == len(tensors):
        raise InputError(
            f'checkpoint {source} has no tensor of this model: it belongs to another network'
        )
    if strict:
        for names, what in ((missing, 'lacks'), (unexpected, 'has, and the model has not,')):
            names = [name for name in names if name.startswith(part)]
            if names:
                raise InputError(
                    f'checkpoint {source} is not of this {network}: it {what} {len(names)} '
                    f'tensors, {names[0]} for one'
                )
    return missing, unexpected
