"""The names of a residual network's tensors in each library, and one set of names for all.

The common names are torchvision's (`layer1.0.conv3.weight`, `layer1.0.bn3.weight`), with
OpenMMLab's `stem.N` for a stem of three convolutions, and this package's for BNET:
`layer1.0.bn3.dw.weight` and `layer1.0.bn3.norm.running_mean`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bnet_mm.errors import InputError
from bnet_mm.models.authors import AUTHORS_OLD, BLOCK, STATISTICS, rename_kernels

NORM = rf'(?:weight|bias|{STATISTICS}|norm\.(?:{STATISTICS})|dw\.(?:weight|bias))'
# What a residual backbone holds, in the common names.
BACKBONE = re.compile(
    rf'(?:conv1\.weight|bn1\.{NORM}|stem\.\d\.{NORM}'
    rf'|{BLOCK}(?:conv\d\.weight|bn\d\.{NORM}|downsample\.\d\.{NORM}))'
)
# A classifier's last layer: torchvision and timm, mmpretrain, mmaction2, CIFAR networks.
CLASSIFIER = re.compile(r'(?:fc|head\.fc|cls_head\.fc_cls|linear|classifier)\.(weight|bias)')

MMACTION = [
    (re.compile(r'downsample\.conv\.'), 'downsample.0.'),
    (re.compile(r'downsample\.bn\.'), 'downsample.1.'),
    # A convolution behind a temporal shift is one level further down.
    (re.compile(r'(conv\d)\.conv\.(?:net\.)?weight$'), r'\1.weight'),
    (re.compile(r'conv(\d)\.bn\.'), r'bn\1.'),
]
# mmpretrain's deep stem is three modules of a convolution and a norm each; the others count layers.
MMPRETRAIN_STEM = re.compile(r'^stem\.(\d)\.(conv|bn)(?=\.)')


@dataclass(frozen=True)
class Layout:
    """How a file names the tensors of its backbone.

    Attributes:
        naming: 'torchvision', 'timm' (where it differs: a deep stem), 'openmmlab' (mmdet, mmseg,
            mmpretrain) or 'mmaction'.
        kernels: 'authors', 'authors-old' or 'bnet_mm'; None where every norm is plain.
        prefix: what stands before the backbone's names: '', 'module.', 'backbone.' or both.
    """

    naming: str
    kernels: str | None
    prefix: str

    def __str__(self) -> str:
        kernels = {
            None: 'plain norms',
            'authors': "BNET in the authors' names",
            'authors-old': "BNET in the authors' older names (bnconv3)",
            'bnet_mm': 'BNET',
        }
        prefix = f', below {self.prefix}' if self.prefix else ''
        return f'{self.naming}, {kernels[self.kernels]}{prefix}'


def detect_layout(keys: Iterable[str]) -> Layout:
    """Returns how a file with these `keys` names its backbone.

    Raises:
        InputError: there is no residual backbone among them, or more than one.
    """
    keys = list(keys)
    starts = [re.match(r'(.*?)(?<![^.])layer1\.0\.', key) for key in keys]
    prefixes = Counter(start[1] for start in starts if start).most_common()
    if not prefixes:
        shown = ', '.join(key[:60] for key in keys[:4]) or 'none'
        raise InputError(
            f'no residual network was found: no name has layer1.0 in it; they begin with {shown}'
        )
    if len(prefixes) > 1:
        raise InputError(
            f'there are several residual networks, below {prefixes[0][0]!r} and below '
            f'{prefixes[1][0]!r}: take the one that is wanted out of the file first'
        )
    prefix = prefixes[0][0]
    names = {key[len(prefix) :] for key in keys if key.startswith(prefix)}
    kernels = None
    if any(re.match(rf'{BLOCK}bnet\d\.', name) for name in names):
        kernels = 'authors'
    elif any(AUTHORS_OLD.match(name) for name in names):
        kernels = 'authors-old'
    elif any('.dw.weight' in name for name in names):
        kernels = 'bnet_mm'
    if any(re.match(rf'{BLOCK}conv\d\.conv\.', name) for name in names):
        naming = 'mmaction'
    elif 'conv1.0.weight' in names:
        naming = 'timm'
    elif any(name.startswith('stem.') for name in names) or 'backbone.' in prefix:
        naming = 'openmmlab'
    else:
        naming = 'torchvision'
    return Layout(naming, kernels, prefix)


def common_names(keys: Iterable[str], layout: Layout) -> dict[str, str]:
    """Returns the common name of each key that belongs to the backbone."""
    keys = [key for key in keys if key.startswith(layout.prefix)]
    kernels = rename_kernels(keys)
    names = {}
    for key in keys:
        name = kernels.get(key, key)[len(layout.prefix) :]
        if layout.naming == 'mmaction':
            for pattern, replacement in MMACTION:
                name = pattern.sub(replacement, name)
        elif layout.naming == 'timm':
            name = re.sub(r'^conv1\.(\d)\.', r'stem.\1.', name)
            # Its stem ends with a norm of its own: index 7 where the convolution before it has 6.
            name = re.sub(r'^bn1\.', 'stem.7.', name)
        else:
            name = MMPRETRAIN_STEM.sub(_stem_index, name)
        if BACKBONE.fullmatch(name):
            names[key] = name
    return names


def _stem_index(match: re.Match) -> str:
    return f'stem.{3 * int(match[1]) + (match[2] == "bn")}'


def target_name(name: str, to: str) -> str:
    """Returns what a tensor with a common `name` is called in the library `to`, or by 'authors'."""
    if to == 'mmpretrain':
        stem = re.match(r'stem\.(\d)(?=\.)', name)
        if stem:
            module, layer = divmod(int(stem[1]), 3)
            name = f'stem.{module}.{("conv", "bn")[layer]}{name[stem.end() :]}'
    if to == 'mmaction':
        name = re.sub(r'downsample\.0\.', 'downsample.conv.', name)
        name = re.sub(r'downsample\.1\.', 'downsample.bn.', name)
        name = re.sub(r'(conv\d)\.weight$', r'\1.conv.weight', name)
        return re.sub(r'(^|\.)bn(\d)\.', r'\1conv\2.bn.', name)
    if to == 'authors':
        name = re.sub(r'bn(\d)\.dw\.', r'bnet\1.bnconv.', name)
        return re.sub(r'bn(\d)\.norm\.', r'bnet\1.', name)
    return name
