"""The conversion of names, at the moment a checkpoint is loaded into a built network."""

from collections import OrderedDict

from torch import Tensor, nn

from bnet_mm.checkpoint.architecture import block_counts
from bnet_mm.checkpoint.layouts import CLASSIFIER, Layout, common_names, detect_layout
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm
from bnet_mm.models.authors import rename_kernels


def match_checkpoint(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns a checkpoint's tensors under the names that `model` has for them.

    It is for networks with BNET, for checkpoints with BNET, and for those of which a plain network
    would otherwise take nothing at all; the rest is returned as it is. The authors' names, a
    `backbone.` that one side has and the other has not, mmaction2's names and the place of the
    classifier are told from the names on both sides. What cannot be the backbone of `model` is
    refused, before a tensor of it has changed. Tensors of plain norms keep their form: a BNET takes
    them (`EnhancedNorm`).

    Args:
        model: a backbone, or a whole model around one.
        state: names and tensors of a checkpoint, without 'module.'.

    Raises:
        InputError: kernels, depth, width or placement of BNET differ, or tensors are missing; the
            message names both sides.
    """
    own = model.state_dict()
    enhanced = any(isinstance(module, EnhancedNorm) for module in model.modules())
    if not enhanced and not _has_bnet(state) and own.keys() & state.keys():
        return state
    try:
        theirs, ours = detect_layout(state), detect_layout(own)
        old = common_names(state, theirs)
    except InputError:
        # No residual network on one side, or several: nothing to align but 'backbone.'. BNET's
        # names are known.
        prefixes = _prefix_of(state), _prefix_of(own)
        names = _moved(state, own, *prefixes) | rename_kernels(state)
        renamed = _renamed(state, names)
        _check_kernels(model, renamed)
        return renamed
    network = _Sites(own, ours)
    if 'layer1.0.conv1.weight' in network.common:  # a MobileNet has stages of the same names
        _check({name: state[key] for key, name in old.items()}, network, own)
    names = _moved(state, own, theirs.prefix, ours.prefix)
    names |= {
        key: network.name_of(name) or names.get(key) or rename_kernels([key]).get(key, key)
        for key, name in old.items()
    }
    names |= _classifier(state, theirs, own)
    renamed = _renamed(state, names)
    _check_kernels(model, renamed)
    return renamed


class _Sites:
    """A network's own names, to be asked for by common names of either form of a norm."""

    def __init__(self, own: dict[str, Tensor], layout: Layout):
        self.common = {name: key for key, name in common_names(own, layout).items()}
        self.bnet = {
            name.removesuffix('.dw.weight') for name in self.common if '.dw.weight' in name
        }
        self._plain = {_plain(name): key for name, key in self.common.items()}

    def name_of(self, name: str) -> str | None:
        """Returns the network's name for what is called `name` in the checkpoint."""
        key = self.common.get(name)
        if key is None and (key := self._plain.get(_plain(name))) is not None:
            # A plain norm's tensor, where the network has BNET.
            key = key.replace('.dw.', '.').replace('.norm.', '.')
        return key

    def tensor(self, name: str, own: dict[str, Tensor]) -> Tensor | None:
        """Returns the network's tensor of that name in either form, or None."""
        key = self._plain.get(_plain(name))
        return None if key is None else own[key]


def _plain(name: str) -> str:
    return name.replace('.dw.', '.').replace('.norm.', '.')


def _has_bnet(state: dict[str, Tensor]) -> bool:
    return any('.dw.weight' in key or 'bnconv' in key for key in state)


def _prefix_of(state: dict[str, Tensor]) -> str:
    return 'backbone.' if any(key.startswith('backbone.') for key in state) else ''


def _moved(
    state: dict[str, Tensor], own: dict[str, Tensor], theirs: str, ours: str
) -> dict[str, str]:
    """Returns new names of what is below `theirs` in a checkpoint and below `ours` in a network.

    These are tensors that have no common name: of other norms, activations and networks.
    """
    if theirs == ours:
        return {}
    plain = {_plain(key) for key in own}
    moved = {key: ours + key.removeprefix(theirs) for key in state if key.startswith(theirs)}
    return {key: name for key, name in moved.items() if _plain(name) in plain}


def _renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    renamed = OrderedDict((names.get(key, key), value) for key, value in state.items())
    if hasattr(state, '_metadata'):
        renamed._metadata = state._metadata
    return renamed


def _classifier(state: dict[str, Tensor], theirs: Layout, own: dict[str, Tensor]) -> dict[str, str]:
    """Returns where the network has its classifier, for a checkpoint that has one of its shape."""
    outer = theirs.prefix.removesuffix('backbone.')
    places = {match[1]: key for key in own if (match := CLASSIFIER.fullmatch(key))}
    names = {}
    for key, value in state.items():
        match = CLASSIFIER.fullmatch(key.removeprefix(outer))
        place = places.get(match[1]) if match else None
        if place is not None and own[place].shape == value.shape:
            names[key] = place
    return names


def _check_kernels(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Raises InputError for a kernel of another size, anywhere in the model."""
    for name, module in model.named_modules():
        kernel = state.get(f'{name}.dw.weight') if isinstance(module, EnhancedNorm) else None
        if kernel is not None and kernel.ndim == 4 and kernel.shape[-1] != module.k:
            raise InputError(_other_kernel(kernel.shape[-1], module.k, name))


def _other_kernel(size: int, k: int, where: str) -> str:
    larger = f', or convert the checkpoint with --k {k}' if size < k else ''
    return (
        f'checkpoint has {size}x{size} kernels, the model k={k} at {where}: build the model with '
        f'k={size}{larger}'
    )


def _check(state: dict[str, Tensor], network: _Sites, own: dict[str, Tensor]) -> None:
    """Raises InputError unless the backbone in `state`, by common names, is the network's."""
    theirs, ours = block_counts(list(state)), block_counts(list(network.common))
    bottleneck = [any('.0.conv3.' in name for name in side) for side in (state, network.common)]
    if bottleneck[0] != bottleneck[1]:
        kinds = ['bottleneck' if kind else 'basic' for kind in bottleneck]
        raise InputError(
            f'checkpoint has {kinds[0]} blocks, the model {kinds[1]} blocks, at layer1.0'
        )
    # A network may have fewer stages: detectors on C4 leave the last one out.
    if theirs[: len(ours)] != ours:
        raise InputError(
            f'checkpoint has {theirs} blocks in its stages, the model {ours}: they differ in depth'
        )
    deep = ['stem.0.weight' in side for side in (state, network.common)]
    if deep[0] != deep[1]:
        stems = ['three convolutions' if side else 'one convolution' for side in deep]
        raise InputError(f'checkpoint has a stem of {stems[0]}, the model of {stems[1]}')
    for name, value in state.items():
        site, _, leaf = name.rpartition('.dw.')
        tensor = network.tensor(name, own)
        where = name.rpartition('.bn')[0] or name
        if tensor is None:
            continue
        kernel = leaf == 'weight' and value.ndim == 4
        if kernel and site not in network.bnet:
            size = value.shape[-1]
            raise InputError(
                f'checkpoint has {size}x{size} kernels, the model plain batch normalization, at '
                f"{site}: use norm_cfg=dict(type='BNET', k={size}) where it belongs"
            )
        if kernel and value.shape[-1] != tensor.shape[-1]:
            raise InputError(_other_kernel(value.shape[-1], tensor.shape[-1], where))
        kernel_of_scale = value.ndim == 1 and tensor.ndim == 4
        fits = value.shape[0] == tensor.shape[0] if kernel_of_scale else value.shape == tensor.shape
        # Another number of input channels is the user's choice, and the loader says so.
        same_kind = value.shape[2:] == tensor.shape[2:] or kernel_of_scale
        first = (
            name in ('conv1.weight', 'stem.0.weight')
            and value.shape[0] == tensor.shape[0]
            and same_kind
        )
        if not fits and not first:
            raise InputError(
                f'checkpoint has {name} of shape {tuple(value.shape)}, the model of '
                f'{tuple(tensor.shape)}: they differ in {"width" if same_kind else "their layers"}'
            )
    here = {_plain(name) for name in state}
    lacking = [
        name
        for name in network.common
        if _plain(name) not in here and not name.endswith('num_batches_tracked')
    ]
    if lacking:
        raise InputError(
            f'checkpoint lacks {len(lacking)} tensors of the backbone that the model has, '
            f'{lacking[0]} for one'
        )
