"""Converts a checkpoint: renames its tensors for another library, turns BN into BNET and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from torch import Tensor
from torch.nn.functional import pad

from bnet_mm.checkpoint.architecture import Architecture, check_complete, infer_architecture, some
from bnet_mm.checkpoint.contents import Contents
from bnet_mm.checkpoint.layouts import BLOCK, CLASSIFIER, Layout, detect_layout
from bnet_mm.checkpoint.writing import sha256
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import storage_of
from bnet_mm.layers.depthwise import check_kernel, dirac_kernel, said_dilation
from bnet_mm.text import without_prefix, without_suffix
from bnet_mm.version import __version__

# Whose names can be written: their naming (see `bnet_mm.checkpoint.layouts`), and where a whole
# model of theirs has its classifier.
DESTINATIONS: dict[str, tuple[str, str | None]] = {
    'mmdet': ('openmmlab', None),
    'mmseg': ('openmmlab', None),
    'mmaction': ('mmaction', 'cls_head.fc_cls'),
    'mmpretrain': ('mmpretrain', 'head.fc'),
    'torchvision': ('torchvision', 'fc'),
    'authors': ('torchvision', 'fc'),
}
OPENMMLAB = ('mmdet', 'mmseg', 'mmaction', 'mmpretrain')
# What a source can be insisted to be: a way to name BNET, or a library's namings of plain norms.
SOURCES = {
    **dict.fromkeys(('authors', 'authors-old', 'bnet_mm'), ()),
    'torchvision': ('torchvision',),
    'timm': ('timm', 'torchvision'),
    **dict.fromkeys(('mmdet', 'mmseg'), ('openmmlab', 'torchvision')),
    'mmpretrain': ('mmpretrain', 'openmmlab', 'torchvision'),
    'mmaction': ('mmaction',),
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
        dilations: dilation of each BNET of the result that is dilated, by the same name.
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
    dilations: dict[str, int]
    renamed: dict[str, str]
    dropped: dict[str, str]
    unexplained: list[str]
    notes: list[str]

    @property
    def library(self) -> str | None:
        """The library whose class the network is; None if no library has one for it."""
        arch = self.architecture
        own_kind = arch.small_input and self.to != 'mmpretrain'
        return None if self.to == 'authors' or arch.depth is None or own_kind else self.to


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
        source: one of `SOURCES`, to insist on a layout that is otherwise detected.

    Raises:
        InputError: the source is not a complete residual network, or the destination has no place
            for it, or no `k` of this size computes the same.

    Examples:
        >>> from bnet_mm.checkpoint import contents_of
        >>> from torchvision.models import resnet18
        >>> found = convert(contents_of(resnet18().state_dict()), to='mmaction', k=3)
        >>> found.state['layer1.0.conv2.bn.dw.weight'].shape
        torch.Size([64, 1, 3, 3])
    """
    if to not in DESTINATIONS:
        raise InputError(f'there are no names for {to!r}; known are {", ".join(DESTINATIONS)}')
    if what not in ('backbone', 'model'):
        raise InputError(f"what must be 'backbone' or 'model', got {what!r}")
    layout = detect_layout(contents.state)
    _check_source(source, layout)
    backbone = layout.to_common(contents.state)
    _check_once(backbone.values())
    inside = re.compile(re.escape(layout.prefix) + BLOCK)
    strange = [key for key in contents.state if key not in backbone and inside.match(key)]
    if strange:
        raise InputError(
            f'this is not a plain residual network, and what it computes is not known: its blocks '
            f'hold {some(strange)}; name the config of the network with --config'
        )
    _check_whole(contents.state, layout, backbone)
    state = {name: _own_memory(contents.state[key]) for key, name in backbone.items()}
    notes = _check_types(state)
    architecture = infer_architecture(state)
    check_complete(state, architecture)
    _check_destination(to, architecture)
    source_kernels, dilations = kernel_sizes(state), _dilations(state)
    if dilations and to == 'authors':
        raise InputError(
            f"the authors' network has no dilation, and {next(iter(dilations))} has kernels of "
            f'dilation {next(iter(dilations.values()))}'
        )
    if k is not None:
        state = resize_kernels(state, k, list(source_kernels) or architecture.norms_at('C'))

    in_a_model = to in OPENMMLAB or (to == 'authors' and 'backbone.' in layout.prefix)
    target = Layout(
        naming=DESTINATIONS[to][0],
        kernels='authors' if to == 'authors' else 'bnet_mm',
        prefix='backbone.' if what == 'model' and in_a_model else '',
    )
    others, dropped, unexplained = _others(contents, layout, backbone, to, what)
    converted = {target.from_common(name): value for name, value in state.items()}
    _check_once([*converted, *others.values()])
    renamed = {**{key: target.from_common(name) for key, name in backbone.items()}, **others}
    kept = {new: _own_memory(contents.state[key]) for key, new in others.items()}
    return Conversion(
        state={**converted, **kept},
        to=to,
        prefix=target.prefix,
        layout=layout,
        architecture=architecture,
        source_kernels=source_kernels,
        kernels=kernel_sizes(state),
        dilations=_dilations(state),
        renamed={key: new for key, new in renamed.items() if key != new},
        dropped={**contents.dropped, **dropped},
        unexplained=contents.unexplained + unexplained,
        notes=notes,
    )


def provenance(source: str | Path, conversion: Conversion) -> dict[str, str]:
    """Returns what a converted checkpoint says of itself, under `meta['bnet_mm']`."""
    return origin(
        source,
        source_layout=str(conversion.layout),
        network=str(conversion.architecture),
        names=conversion.to,
    )


def origin(source: str | Path, **facts: str) -> dict[str, str]:
    """Returns where a written checkpoint comes from, by which version, and further facts of it."""
    source = Path(source)
    return {
        'source': source.name,
        'source_sha256': sha256(source),
        **facts,
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'bnet_mm': __version__,
    }


def kernel_sizes(state: dict[str, Tensor]) -> dict[str, int]:
    """Returns the kernel size of each BNET, by the common name of its norm (`layer1.0.bn3`)."""
    return {
        without_suffix(name, '.dw.weight'): value.shape[-1]
        for name, value in state.items()
        if name.endswith('.dw.weight') and value.ndim == 4
    }


def _dilations(state: dict[str, Tensor]) -> dict[str, int]:
    """Returns the dilation of each BNET that has one, by the common name of its norm."""
    found = {}
    for name, value in state.items():
        site, _, leaf = name.rpartition('.dw.')
        if leaf == 'dilation':
            said = said_dilation(value, {})
            if not isinstance(said, int) or said < 1:
                raise InputError(f'{name} is {said}, and a dilation is a positive integer')
            found[site] = said
    return found


def resize_kernels(state: dict[str, Tensor], k: int, sites: Iterable[str]) -> dict[str, Tensor]:
    """Returns the state with k x k kernels at `sites`, which computes the same.

    A plain norm's scale becomes the centre tap, a smaller kernel gets a border of zeros, and a
    larger one loses its border if that is zero. With `k=1` BNET becomes plain batch normalization.

    Args:
        state: a backbone's tensors under their common names.
        k: kernel size, odd.
        sites: common names of norms.

    Raises:
        InputError: a kernel is larger and its border is not zero.
    """
    k, _ = check_kernel(k)
    result = dict(state)
    for site in sites:
        kernel, bias = result.pop(f'{site}.dw.weight', None), result.pop(f'{site}.dw.bias', None)
        if kernel is None or bias is None:
            kernel, bias = dirac_kernel(result.pop(f'{site}.weight'), 1), result.pop(f'{site}.bias')
        kernel = _resized(kernel, k, site)
        if k == 1:
            result.pop(f'{site}.dw.dilation', None)
        norm, affine = ('', '') if k == 1 else ('norm.', 'dw.')
        for name in ('running_mean', 'running_var', 'num_batches_tracked'):
            for old in (f'{site}.{name}', f'{site}.norm.{name}'):
                if old in result:
                    result[f'{site}.{norm}{name}'] = result.pop(old)
        result[f'{site}.{affine}weight'] = kernel.flatten() if k == 1 else kernel
        result[f'{site}.{affine}bias'] = bias
    return result


def _resized(kernel: Tensor, k: int, site: str) -> Tensor:
    border = (k - kernel.shape[-1]) // 2
    if border >= 0:
        return pad(kernel, (border,) * 4)
    inner = kernel[:, :, -border:border, -border:border]
    if inner.count_nonzero() != kernel.count_nonzero():
        size = kernel.shape[-1]
        raise InputError(
            f'{site} has a {size}x{size} kernel whose outer taps are not zero: it cannot become '
            f'k={k}; choose k={size} or larger'
        )
    return inner.clone()


def _check_whole(state: dict[str, Tensor], layout: Layout, backbone: dict[str, str]) -> None:
    """Raises InputError where the residual blocks are but a small part, as in an HRNet."""
    others = [
        key
        for key, value in state.items()
        if key.startswith(layout.prefix) and key not in backbone and value.ndim == 4
    ]
    if len(others) >= sum(state[key].ndim == 4 for key in backbone):
        raise InputError(
            f'this is not a plain residual network: beside its blocks it holds {some(others)}; '
            f'name the config of the network with --config'
        )


def _others(
    contents: Contents, layout: Layout, backbone: dict[str, str], to: str, what: str
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Sorts the other tensors: old name -> new name; dropped, and why; unexplained."""
    kept: dict[str, str] = {}
    dropped: dict[str, str] = {}
    unexplained = []
    place = DESTINATIONS[to][1]
    outer = without_suffix(layout.prefix, 'backbone.')
    in_a_model = layout.prefix != outer
    for key in contents.state:
        if key in backbone:
            continue
        name = without_prefix(key, outer)
        classifier = CLASSIFIER.fullmatch(name)
        if not classifier and (not in_a_model or key.startswith(layout.prefix)):
            unexplained.append(key)
        elif what == 'backbone':
            dropped[key] = 'the classifier' if classifier else 'not of the backbone'
        elif classifier and place:
            kept[key] = f'{place}.{classifier[1]}'
        elif classifier or (to not in OPENMMLAB and not (to == 'authors' and in_a_model)):
            dropped[key] = f'no place for it in a model of {to}'
        else:
            kept[key] = name
    return kept, dropped, unexplained


def _check_source(source: str | None, layout: Layout) -> None:
    if source is None:
        return
    if source not in SOURCES:
        raise InputError(f'there is no layout {source!r}; known are {", ".join(SOURCES)}')
    plain = layout.kernels is None and layout.naming in SOURCES[source]
    if not plain and layout.kernels != source:
        raise InputError(f'the checkpoint is not in the layout {source!r}: it is {layout}')


def _check_destination(to: str, architecture: Architecture) -> None:
    """Raises InputError for a network that the destination does not have."""
    if to in OPENMMLAB and architecture.depth is None and not architecture.small_input:
        raise InputError(
            f'{to} has no {architecture}: the checkpoint is incomplete, or of a network of your '
            f'own (then choose torchvision, whose names it has)'
        )
    if to in OPENMMLAB and architecture.is_wide:
        raise InputError(f'{to} has no {architecture}: choose torchvision, whose names it has')
    v1d = architecture.deep_stem or architecture.avg_down
    widths = {architecture.base_channels, architecture.stem_channels}
    other = architecture.groups > 1 or widths != {64}
    if (to in ('torchvision', 'mmaction', 'authors') and v1d) or (
        to == 'mmaction' and other and not architecture.small_input
    ):
        raise InputError(
            f'{to} has no network like this {architecture}: choose mmdet, mmseg or mmpretrain'
        )


def _check_once(names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f'the checkpoint has two tensors for the place of {some(twice)}')


def _check_types(state: dict[str, Tensor]) -> list[str]:
    """Returns what to say of the tensors' types, counters of batches and dilations aside."""
    counters = ('num_batches_tracked', '.dw.dilation')
    weights = {name: v for name, v in state.items() if not name.endswith(counters)}
    for name, value in weights.items():
        if not value.is_floating_point():
            raise InputError(
                f'{name} holds {value.dtype} numbers, and weights are floating-point: is the '
                f'checkpoint quantized? Convert the one it was made from'
            )
    types = Counter(without_prefix(str(value.dtype), 'torch.') for value in weights.values())
    if list(types) == ['float32']:
        return []
    shown = ', '.join(f'{count} tensors of {dtype}' for dtype, count in types.items())
    return [f'{shown}: types are kept as they are, and a float32 network loads them as float32']


def _own_memory(value: Tensor) -> Tensor:
    # A view of something larger would be written with all of it.
    whole = storage_of(value).nbytes() == value.numel() * value.element_size()
    return value if whole and value.is_contiguous() else value.clone().contiguous()
