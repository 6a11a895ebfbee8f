"""Converts a checkpoint of any network to the norms of a given model: plain to BNET, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from bnet_mm.checkpoint.adapt import check_kernels, loadable, renamed
from bnet_mm.checkpoint.architecture import some
from bnet_mm.checkpoint.conversion import resize_kernels
from bnet_mm.checkpoint.prefixes import prefixes_of
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms

# Older torch wrote none, and nothing is computed with them.
COUNTERS = ('num_batches_tracked', '.dw.dilation')


@dataclass(frozen=True)
class Fit:
    """A checkpoint's tensors as a model loads them.

    Attributes:
        state: the tensors by the model's names.
        prefix: below which the file has them.
        kernels: k of each BNET of the result, by the name of its norm.
        left: names of the file that the model has no place for.
    """

    state: dict[str, Tensor]
    prefix: str
    kernels: dict[str, int]
    left: list[str]


def fit(state: Mapping[str, Tensor], model: nn.Module) -> Fit:
    """Converts a checkpoint to the norms that `model` has; the outputs stay the same.

    Where the model has a BNET, a plain norm's scale becomes the centre tap and a smaller kernel
    gets a border of zeros; where it has a plain norm, a BNET that is one becomes it.

    Args:
        state: names and tensors of a checkpoint, see `contents_of`.
        model: any model, or a part of one; it stays as it is.

    Raises:
        InputError: the file has not all tensors of the model, or below several prefixes, or of
            other shapes, or a kernel that the model's norm does not compute.

    Examples:
        >>> from torchvision.models import mobilenet_v2
        >>> from bnet_mm import enhance
        >>> plain = mobilenet_v2()
        >>> found = fit(plain.state_dict(), enhance(mobilenet_v2(), k=5))
        >>> found.state['features.2.conv.0.1.dw.weight'].shape
        torch.Size([96, 1, 5, 5])
        >>> fit(found.state, plain).state.keys() == plain.state_dict().keys()
        True
    """
    own = model.state_dict()
    enhanced = dict(named_norms(model, EnhancedNorm, repeated=True))
    sites = {key.rpartition('.')[0] for key in own} | enhanced.keys()
    places = [*own, *loadable(model), *(f'{site}.dw.weight' for site in sites)]
    state, prefix = dict(renamed(state, model)), ''
    prefixes = prefixes_of(state, places)
    if not prefixes:
        raise InputError(
            f'the checkpoint has no tensor of this {type(model).__name__}: it belongs to another '
            f'network'
        )
    if len(prefixes) > 1 and '' not in prefixes:
        raise InputError(
            f'the checkpoint has this {type(model).__name__} below {prefixes[0]!r} and below '
            f'{prefixes[1]!r}: choose one (--prefix {prefixes[0]})'
        )
    left = []
    if '' not in prefixes:
        prefix = prefixes[0]
        inside = {key for key in state if key.startswith(prefix)}
        left = [key for key in state if key not in inside]
        state = {key[len(prefix) :]: state[key] for key in inside}
    for site in sites:
        kernel = state.get(f'{site}.dw.weight')
        norm = enhanced.get(site)
        if isinstance(norm, EnhancedNorm) and (kernel is not None or f'{site}.weight' in state):
            state = resize_kernels(state, norm.k, [site])
        elif norm is None and kernel is not None and f'{site}.weight' in own:
            state = resize_kernels(state, 1, [site])
    check_kernels(state, model)
    missing = [key for key in own if key not in state and not key.endswith(COUNTERS)]
    if missing:
        raise InputError(
            f'the checkpoint lacks {len(missing)} of {len(own)} tensors of this '
            f'{type(model).__name__}: {some(missing)}'
        )
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if wrong:
        raise InputError(
            f'{wrong[0]} has the shape {tuple(state[wrong[0]].shape)} in the checkpoint and '
            f'{tuple(own[wrong[0]].shape)} in the {type(model).__name__}'
        )
    return Fit(
        state={key: state[key] for key in own if key in state},
        prefix=prefix,
        kernels={site: norm.k for site, norm in enhanced.items() if isinstance(norm, EnhancedNorm)},
        left=left + [key for key in state if key not in own],
    )
