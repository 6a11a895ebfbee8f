"""Gives the tensors of a checkpoint the names, and its norms the form, that a network expects."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from bnet_mm.checkpoint.architecture import Architecture, check_complete, infer_architecture
from bnet_mm.checkpoint.contents import Contents
from bnet_mm.checkpoint.kernels import kernel_sizes, set_kernel_size
from bnet_mm.checkpoint.layouts import (
    CLASSIFIER,
    Layout,
    common_names,
    detect_layout,
    target_name,
)
from bnet_mm.errors import InputError
from bnet_mm.models.authors import BLOCK

# Where a whole model's classifier is, by destination.
CLASSIFIERS = {
    'mmpretrain': 'head.fc',
    'mmaction': 'cls_head.fc_cls',
    'torchvision': 'fc',
    'authors': 'fc',
}
OPENMMLAB = ('mmdet', 'mmseg', 'mmaction', 'mmpretrain')
DESTINATIONS = (*OPENMMLAB, 'torchvision', 'authors')
# What --from may say -> what the file then has to look like.
SOURCES = {
    'authors': lambda layout: layout.kernels == 'authors',
    'authors-old': lambda layout: layout.kernels == 'authors-old',
    'bnet_mm': lambda layout: layout.kernels == 'bnet_mm',
    'torchvision': lambda layout: layout.naming == 'torchvision' and layout.kernels is None,
    'timm': lambda layout: layout.naming in ('timm', 'torchvision') and layout.kernels is None,
    **dict.fromkeys(
        ('mmdet', 'mmseg', 'mmpretrain'),
        lambda layout: layout.naming in ('openmmlab', 'torchvision') and layout.kernels is None,
    ),
    'mmaction': lambda layout: layout.naming == 'mmaction' and layout.kernels is None,
}


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint, and what became of each part of the old one.

    Attributes:
        state: the tensors under their new names.
        to: the destination, one of `DESTINATIONS`.
        prefix: what stands before the backbone's names in `state`: '' or 'backbone.'.
        layout: how the source named them.
        architecture: the network they belong to.
        source_kernels: kernel size of each BNET of the source, by the common name of its norm.
        kernels: the same of the result.
        renamed: source name -> new name, where the two differ.
        dropped: what was left out, and why.
        unexplained: names that belong to nothing known, left out.
        notes: what a reader should know of the tensors' types.
    """

    state: dict[str, Tensor]
    to: str
    prefix: str
    layout: Layout
    architecture: Architecture
    source_kernels: dict[str, int]
    kernels: dict[str, int]
    renamed: dict[str, str]
    dropped: dict[str, str]
    unexplained: list[str]
    notes: list[str]


def convert(
    contents: Contents,
    to: str = 'mmdet',
    what: str = 'backbone',
    k: int | None = None,
    source: str | None = None,
) -> Conversion:
    """Converts a residual network's weights to what another library, or BNET, loads.

    Args:
        contents: the source, see `contents_of`.
        to: one of `DESTINATIONS`. mmdet, mmseg, mmpretrain and torchvision have the same names for
            a backbone; 'authors' gives those of the paper's authors.
        what: 'backbone', for `init_cfg=dict(type='Pretrained', ...)`; or 'model', for `load_from`.
        k: kernel size of the result. Plain norms become BNET at position C, smaller kernels get a
            border of zeros, and with 1 BNET becomes plain batch normalization; the outputs stay
            the same. None keeps what the source has.
        source: one of `SOURCES`, to insist on a layout that is otherwise found out.

    Raises:
        InputError: the source is no complete residual network, or the destination has no place for
            it, or no `k` of this size computes the same.
    """
    if to not in DESTINATIONS:
        raise InputError(f'there are no names for {to!r}; known are {", ".join(DESTINATIONS)}')
    if what not in ('backbone', 'model'):
        raise InputError(f"what must be 'backbone' or 'model', got {what!r}")
    if source is not None and source not in SOURCES:
        raise InputError(f'there is no layout {source!r}; known are {", ".join(SOURCES)}')
    layout = detect_layout(contents.state)
    if source is not None and not SOURCES[source](layout):
        raise InputError(f'the checkpoint is not in the layout {source!r}: it is {layout}')
    backbone = common_names(contents.state, layout)
    _check_once(backbone.values())
    _check_blocks(contents.state, layout, backbone)
    state = {name: _own_memory(contents.state[key]) for key, name in backbone.items()}
    notes = _check_types(state)
    check_complete(state)
    architecture = infer_architecture(state)
    wide = architecture.groups == 1 and architecture.base_width != architecture.base_channels
    unnamed = architecture.depth is None and not architecture.small_input
    if unnamed and to in OPENMMLAB:
        raise InputError(
            f'{to} has no {architecture}: the checkpoint is incomplete, or of a network of your '
            f'own (then choose torchvision, whose names it has)'
        )
    if wide and to in OPENMMLAB:
        raise InputError(f'{to} has no {architecture}: choose torchvision, whose names it has')
    grouped_or_narrow = architecture.groups > 1 or architecture.base_channels != 64
    if (
        to in ('torchvision', 'mmaction', 'authors')
        and (architecture.deep_stem or architecture.avg_down)
    ) or (to == 'mmaction' and grouped_or_narrow and not architecture.small_input):
        raise InputError(
            f'{to} has no network like this {architecture}: choose mmdet, mmseg or mmpretrain'
        )
    source_kernels = kernel_sizes(state)
    if k is not None:
        state = set_kernel_size(state, k)

    below_backbone = what == 'model' and (
        to in OPENMMLAB or (to == 'authors' and 'backbone.' in layout.prefix)
    )
    prefix = 'backbone.' if below_backbone else ''
    others, dropped, unexplained = _others(contents, layout, backbone, to, what)
    converted = {prefix + target_name(name, to): value for name, value in state.items()}
    _check_once([*converted, *others])
    renamed = {key: prefix + target_name(name, to) for key, name in backbone.items()}
    renamed |= {key: new for new, (key, _) in others.items()}
    return Conversion(
        state=converted | {new: value for new, (_, value) in others.items()},
        to=to,
        prefix=prefix,
        layout=layout,
        architecture=architecture,
        source_kernels=source_kernels,
        kernels=kernel_sizes(state),
        renamed={key: new for key, new in renamed.items() if key != new},
        dropped=contents.dropped | dropped,
        unexplained=contents.unexplained + unexplained,
        notes=notes,
    )


def _others(
    contents: Contents, layout: Layout, backbone: dict[str, str], to: str, what: str
) -> tuple[dict[str, tuple[str, Tensor]], dict[str, str], list[str]]:
    """Sorts what is not of the backbone: new name -> (old name, tensor); dropped; unexplained."""
    kept, dropped, unexplained = {}, {}, []
    outer = layout.prefix.removesuffix('backbone.')
    in_a_model = layout.prefix != outer
    for key, value in contents.state.items():
        if key in backbone:
            continue
        name = key.removeprefix(outer)
        classifier = CLASSIFIER.fullmatch(name)
        if not classifier and (not in_a_model or key.startswith(layout.prefix)):
            unexplained.append(key)
        elif what == 'backbone':
            dropped[key] = 'the classifier' if classifier else 'not of the backbone'
        elif classifier and to in CLASSIFIERS:
            kept[f'{CLASSIFIERS[to]}.{classifier[1]}'] = key, _own_memory(value)
        elif classifier or (to not in OPENMMLAB and not (to == 'authors' and in_a_model)):
            dropped[key] = f'no place for it in a model of {to}'
        else:
            kept[name] = key, _own_memory(value)
    return kept, dropped, unexplained


def _check_blocks(state: dict[str, Tensor], layout: Layout, backbone: dict[str, str]) -> None:
    """Raises InputError for a tensor inside a residual block that plain residual blocks lack."""
    inside = re.compile(re.escape(layout.prefix) + BLOCK)
    strange = [key for key in state if key not in backbone and inside.match(key)]
    if strange:
        raise InputError(
            f'this is no plain residual network, and what it computes is not known: its blocks '
            f'hold {_some(strange)}'
        )


def _check_once(names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f'the checkpoint has two tensors for the place of {_some(twice)}')


def _check_types(state: dict[str, Tensor]) -> list[str]:
    counters = {name for name in state if name.endswith('num_batches_tracked')}
    types: dict = {}
    for name, value in state.items():
        if name in counters:
            continue
        if not value.is_floating_point():
            raise InputError(
                f'{name} holds {value.dtype} numbers, and weights are floating-point: is the '
                f'checkpoint quantized? Convert the one it was made from'
            )
        types.setdefault(str(value.dtype).removeprefix('torch.'), []).append(name)
    if list(types) == ['float32']:
        return []
    shown = ', '.join(f'{len(names)} tensors of {dtype}' for dtype, names in types.items())
    return [f'{shown}: types are kept as they are, and a float32 network loads them as float32']


def _own_memory(value: Tensor) -> Tensor:
    # A view of something larger would be written with all of it.
    whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
    return value if whole and value.is_contiguous() else value.clone().contiguous()


def _some(names: list[str]) -> str:
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
