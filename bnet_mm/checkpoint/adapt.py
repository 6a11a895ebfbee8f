"""Translates the names in a checkpoint to a network's own, when it is loaded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from bnet_mm.checkpoint.architecture import check_same
from bnet_mm.checkpoint.layouts import ANY_BACKBONE, CLASSIFIER, Layout, detect_layout
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.layers.depthwise import said_dilation
from bnet_mm.models.authors import rename_kernels
from bnet_mm.text import without_prefix, without_suffix


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
    adapted = renamed(state, model)
    if adapted is not state:
        _check_network(state, model.state_dict())
        check_kernels(adapted, model)
    return adapted


def renamed(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Does what `adapt` does, whatever the network, and the size and the dilation of kernels."""
    own = model.state_dict()
    with_bnet = any('.dw.weight' in key or 'bnconv' in key for key in state)
    enhanced = next(named_norms(model, EnhancedNorm), None) is not None
    if not enhanced and not with_bnet and own.keys() & state.keys():
        return state
    names = rename_kernels(state)  # wherever the tensors are
    try:
        theirs, ours = detect_layout(state), detect_layout(own)
    except InputError:  # no residual network on one side, or several
        theirs, ours = _other_layout(state), _other_layout(own)
        classifier = {}
    else:
        classifier = _classifier(state, own, theirs)
    places = {name: key for key, name in _inner_names(loadable(model), ours).items()}
    for key, name in _inner_names(state, theirs).items():
        if name in places:
            names[key] = places[name]
    names.update(classifier)
    metadata = dict(getattr(state, '_metadata', None) or {})
    for key in [key for key in state if key.endswith('.dw.weight')]:  # which an undilated one lacks
        old, new = (without_suffix(name, '.weight') for name in (key, names.get(key, key)))
        names[f'{old}.dilation'] = f'{new}.dilation'
        if old in metadata:
            metadata[new] = metadata[old]
    adapted = OrderedDict((names.get(key, key), value) for key, value in state.items())
    if hasattr(state, '_metadata'):
        adapted._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    return adapted


def _check_network(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raises InputError where both sides are residual networks, and not the same one."""
    try:
        theirs, ours = detect_layout(state), detect_layout(own)
    except InputError:  # no residual network on one side, or several
        return
    backbone = ours.backbone(own)
    if 'layer1.0.conv1.weight' in backbone:  # a MobileNet has stages of the same names
        check_same(theirs.backbone(state), backbone)


def _other_layout(keys: Iterable[str]) -> Layout:
    below = any(key.startswith('backbone.') for key in keys)
    return Layout('torchvision', None, 'backbone.' if below else '')


def loadable(model: nn.Module) -> list[str]:
    """Returns the names that `model` loads: a BNET also takes a plain norm's."""
    keys = list(model.state_dict())
    for site, norm in named_norms(model, EnhancedNorm, repeated=True):
        plain = (without_prefix(without_prefix(name, 'norm.'), 'dw.') for name in norm.state_dict())
        keys += [f'{site}.{name}' for name in plain]
    return keys


def _inner_names(keys: Iterable[str], layout: Layout) -> dict[str, str]:
    """Returns what each key below the backbone's prefix is called there, by common name if any."""
    keys = [key for key in keys if key.startswith(layout.prefix)]
    inner = {key: key[len(layout.prefix) :] for key in keys}
    return {**inner, **layout.to_common(keys, ANY_BACKBONE)}


def _classifier(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], theirs: Layout
) -> dict[str, str]:
    """Returns where the model has its classifier, for a checkpoint that has one of its shape."""
    outer = without_suffix(theirs.prefix, 'backbone.')
    places = {match[1]: key for key in own if (match := CLASSIFIER.fullmatch(key))}
    names = {}
    for key, value in state.items():
        match = CLASSIFIER.fullmatch(without_prefix(key, outer))
        place = places.get(match[1]) if match else None
        if place is not None and own[place].shape == value.shape:
            names[key] = place
    return names


def check_kernels(state: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raises InputError for a kernel of another size or dilation, anywhere in the model."""
    metadata = getattr(state, '_metadata', {})
    for name, norm in named_norms(model, EnhancedNorm, repeated=True):
        assert isinstance(norm, EnhancedNorm)
        kernel, k = state.get(f'{name}.dw.weight'), norm.k
        if kernel is not None and kernel.ndim == 4 and kernel.shape[-1] != k:
            size = kernel.shape[-1]
            larger = f', or convert the checkpoint with --k {k}' if size < k else ''
            raise InputError(
                f'checkpoint has {size}x{size} kernels, the model k={k} at {name}: build the model '
                f'with k={size}{larger}'
            )
        said = said_dilation(state.get(f'{name}.dw.dilation'), metadata.get(f'{name}.dw', {}))
        if kernel is not None and k > 1 and said not in (None, norm.dilation):
            raise InputError(
                f'checkpoint has kernels of dilation {said}, the model of dilation {norm.dilation} '
                f'at {name}: build the model with dilation={said}'
            )
