"""Translates the names in a checkpoint to a network's own, when it is loaded."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from bnet_mm.checkpoint.architecture import check_same
from bnet_mm.checkpoint.layouts import CLASSIFIER, Layout, detect_layout, plain_form
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.models.authors import rename_kernels


def adapt(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Returns a checkpoint's tensors under the names that `model` has for them.

    It is for networks with BNET, for checkpoints with BNET, and for those of which a plain network
    would otherwise take nothing at all; the rest is returned as it is. The authors' names, a
    `backbone.` that one side has and the other has not, mmaction2's names and the place of the
    classifier are detected from the names on both sides. What cannot be the backbone of `model` is
    refused. Tensors of plain norms keep their form: a BNET takes them (`EnhancedNorm`).

    Args:
        state: names and tensors of a checkpoint, without 'module.'.
        model: a backbone, or a whole model around one.

    Raises:
        InputError: kernels, depth, width or placement of BNET differ, or tensors are missing; the
            message names both sides.

    Examples:
        >>> import torch
        >>> from bnet_mm import BNET
        >>> model = nn.ModuleDict({'backbone': nn.Sequential(BNET(4, k=3))})
        >>> list(adapt({'0.dw.bias': torch.zeros(4)}, model))
        ['backbone.0.dw.bias']
    """
    own = model.state_dict()
    with_bnet = any('.dw.weight' in key or 'bnconv' in key for key in state)
    enhanced = next(named_norms(model, EnhancedNorm), None) is not None
    if not enhanced and not with_bnet and own.keys() & state.keys():
        return state
    kernels = rename_kernels(state)
    names = {key: kernels.get(key, key) for key in state}
    try:
        theirs, ours = detect_layout(state), detect_layout(own)
    except InputError:  # no residual network on one side, or several: both may have a 'backbone.'
        names |= _moved(names, own, _backbone(state), _backbone(own))
    else:
        names |= _moved(names, own, theirs.prefix, ours.prefix)
        names |= _matched(state, own, theirs, ours)
        names |= _classifier(state, own, theirs)
    adapted = OrderedDict((names[key], value) for key, value in state.items())
    if hasattr(state, '_metadata'):
        adapted._metadata = state._metadata  # type: ignore[attr-defined]
    _check_kernels(adapted, model)
    return adapted


def _backbone(state: Mapping[str, Tensor]) -> str:
    return 'backbone.' if any(key.startswith('backbone.') for key in state) else ''


def _moved(
    names: dict[str, str], own: Mapping[str, Tensor], theirs: str, ours: str
) -> dict[str, str]:
    """Returns new names of what is below `theirs` in the checkpoint and below `ours` in the model.

    These are tensors that have no common name: of other norms, activations and networks.
    """
    plain = {plain_form(key) for key in own}
    moved = {
        key: ours + name.removeprefix(theirs)
        for key, name in names.items()
        if name.startswith(theirs)
    }
    return {key: name for key, name in moved.items() if plain_form(name) in plain}


def _matched(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], theirs: Layout, ours: Layout
) -> dict[str, str]:
    """Returns the model's names of the tensors of the checkpoint's backbone, by common names."""
    common, own_common = theirs.to_common(state), ours.to_common(own)
    own_names = {name: key for key, name in own_common.items()}
    if 'layer1.0.conv1.weight' in own_names:  # a MobileNet has stages of the same names
        check_same(
            {name: state[key] for key, name in common.items()},
            {name: own[key] for name, key in own_names.items()},
        )
    places = {plain_form(name): key for name, key in own_names.items()}
    matched = {}
    for key, name in common.items():
        place = places.get(plain_form(name))
        if place is not None:
            # The model's BNET takes a plain norm's tensor under a plain norm's name.
            matched[key] = place if name in own_names else plain_form(place)
    return matched


def _classifier(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], theirs: Layout
) -> dict[str, str]:
    """Returns where the model has its classifier, for a checkpoint that has one of its shape."""
    outer = theirs.prefix.removesuffix('backbone.')
    places = {match[1]: key for key in own if (match := CLASSIFIER.fullmatch(key))}
    names = {}
    for key, value in state.items():
        match = CLASSIFIER.fullmatch(key.removeprefix(outer))
        place = places.get(match[1]) if match else None
        if place is not None and own[place].shape == value.shape:
            names[key] = place
    return names


def _check_kernels(state: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raises InputError for a kernel of another size, anywhere in the model."""
    for name, norm in named_norms(model, EnhancedNorm, repeated=True):
        assert isinstance(norm, EnhancedNorm)
        kernel = state.get(f'{name}.dw.weight')
        if kernel is not None and kernel.ndim == 4 and kernel.shape[-1] != norm.k:
            size, k = kernel.shape[-1], norm.k
            larger = f', or convert the checkpoint with --k {k}' if size < k else ''
            raise InputError(
                f'checkpoint has {size}x{size} kernels, the model k={k} at {name}: build the model '
                f'with k={size}{larger}'
            )
