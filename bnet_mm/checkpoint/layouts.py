"""The names of a residual network's tensors in each library, and one set of names for all.

The common names are torchvision's (`layer1.0.conv3.weight`, `layer1.0.bn3.weight`), with
OpenMMLab's `stem.N` for a stem of three convolutions, and this package's for BNET:
`layer1.0.bn3.dw.weight` and `layer1.0.bn3.norm.running_mean`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from bnet_mm.errors import InputError
from bnet_mm.models.authors import AUTHORS, FIELDS, STATISTICS, Rules, rename, rename_kernels

BLOCK = r'layer\d+\.\d+\.'
NORM = rf'(?:weight|bias|{STATISTICS}|norm\.(?:{STATISTICS})|dw\.(?:weight|bias|dilation))'
# What a residual backbone holds, in the common names.
BACKBONE = re.compile(
    rf'(?:conv1\.weight|bn1\.{NORM}|stem\.\d\.{NORM}'
    rf'|{BLOCK}(?:conv\d\.weight|bn\d\.{NORM}|downsample\.\d\.{NORM}))'
)
# The same with other norms, whatever tensors these have.
ANY_BACKBONE = re.compile(
    rf'{BACKBONE.pattern}|(?:{BLOCK})?(?:{FIELDS["norm"]})\d\..*|{BLOCK}downsample\.\d\..*'
)
# A classifier's last layer: torchvision and timm, mmpretrain, mmaction2, CIFAR networks.
CLASSIFIER = re.compile(r'(?:fc|head\.fc|cls_head\.fc_cls|linear|classifier)\.(weight|bias)')

# A library's names and the common ones, where they differ; the first rule that matches counts, in
# either direction.
NAMINGS: dict[str, Rules] = {
    'torchvision': (),
    'openmmlab': (),
    # A deep stem, which ends with a norm of its own.
    'timm': (('bn1.{rest}', 'stem.7.{rest}'), ('conv1.{i}.{rest}', 'stem.{i}.{rest}')),
    # A deep stem is three modules of a convolution and a norm each; the others count layers.
    'mmpretrain': tuple(
        (f'stem.{module}.{layer}.{{rest}}', f'stem.{3 * module + i}.{{rest}}')
        for module in range(3)
        for i, layer in enumerate(('conv', 'bn'))
    ),
    'mmaction': (
        ('{block}.downsample.conv.{rest}', '{block}.downsample.0.{rest}'),
        # The first one is written, each is read.
        *(
            (f'{{block}}.downsample.{norm}.{{rest}}', '{block}.downsample.1.{rest}')
            for norm in FIELDS['norm'].split('|')
        ),
        ('{at}conv{i}.conv.weight', '{at}conv{i}.weight'),
        ('{at}conv{i}.conv.net.weight', '{at}conv{i}.weight'),  # behind a temporal shift
        ('{at}conv{i}.{norm}.{rest}', '{at}{norm}{i}.{rest}'),
    ),
}
KERNELS = {
    None: 'plain norms',
    'authors': "BNET in the authors' names",
    'authors-old': "BNET in the authors' older names (bnconv3)",
    'bnet_mm': 'BNET',
}


@dataclass(frozen=True)
class Layout:
    """How a file or a network names the tensors of its backbone.

    Attributes:
        naming: one of `NAMINGS`. 'timm' and 'mmpretrain' have names of their own in a deep stem
            alone; otherwise they are 'torchvision' and, below 'backbone.', 'openmmlab'.
        kernels: one of `KERNELS`: 'authors', 'authors-old' or 'bnet_mm'; None where every norm is
            plain.
        prefix: what stands before the backbone's names: '', 'module.', 'backbone.' or both.
    """

    naming: str
    kernels: str | None
    prefix: str

    def __str__(self) -> str:
        prefix = f', below {self.prefix}' if self.prefix else ''
        return f'{self.naming}, {KERNELS[self.kernels]}{prefix}'

    def to_common(self, keys: Iterable[str], pattern: re.Pattern[str] = BACKBONE) -> dict[str, str]:
        """Returns the common name of each of a file's `keys` that belongs to the backbone.

        All keys are needed at once: in the authors' older files a BNET's statistics have the names
        of a plain norm's.

        Args:
            keys: of the whole file.
            pattern: what belongs to the backbone, `BACKBONE` or `ANY_BACKBONE`.
        """
        keys = [key for key in keys if key.startswith(self.prefix)]
        kernels = rename_kernels(keys)
        names = {
            key: rename(kernels.get(key, key)[len(self.prefix) :], NAMINGS[self.naming])
            for key in keys
        }
        return {key: name for key, name in names.items() if pattern.fullmatch(name)}

    def backbone(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors of the backbone by common name."""
        return {name: state[key] for key, name in self.to_common(state).items()}

    def from_common(self, name: str) -> str:
        """Returns what a tensor with a common `name` is called in this layout.

        Examples:
            >>> Layout('mmaction', 'bnet_mm', 'backbone.').from_common('layer1.0.bn3.dw.weight')
            'backbone.layer1.0.conv3.bn.dw.weight'
        """
        if self.kernels == 'authors':
            name = rename(name, AUTHORS, back=True)
        return self.prefix + rename(name, NAMINGS[self.naming], back=True)


def detect_layout(keys: Iterable[str]) -> Layout:
    """Returns how a file or a network with these `keys` names its backbone.

    Raises:
        InputError: there is no residual backbone among them, or more than one.
    """
    keys = list(keys)
    starts = [re.match(r'(.*?)(?<![^.])layer1\.0\.', key) for key in keys]
    prefixes = Counter(start[1] for start in starts if start).most_common()
    if not prefixes:
        shown = ', '.join(key[:60] for key in keys[:4]) or 'none'
        raise InputError(
            f'no residual network was found: no name has layer1.0 in it; they begin with {shown}. '
            f'Any other network is converted by its config (--config)'
        )
    if len(prefixes) > 1:
        raise InputError(
            f'there are several residual networks, below {prefixes[0][0]!r} and below '
            f'{prefixes[1][0]!r}: choose one (--prefix {prefixes[0][0]})'
        )
    prefix = prefixes[0][0]
    names = {key[len(prefix) :] for key in keys if key.startswith(prefix)}

    def has(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    kernels = None
    if has(rf'{BLOCK}bnet\d\.'):
        kernels = 'authors'
    elif has(rf'{BLOCK}bnconv\d\.'):
        kernels = 'authors-old'
    elif has(r'.*\.dw\.weight'):
        kernels = 'bnet_mm'
    if has(rf'{BLOCK}conv\d\.conv\.'):
        naming = 'mmaction'
    elif 'conv1.0.weight' in names:
        naming = 'timm'
    elif 'stem.0.conv.weight' in names:
        naming = 'mmpretrain'
    elif has(r'stem\.') or 'backbone.' in prefix:
        naming = 'openmmlab'
    else:
        naming = 'torchvision'
    return Layout(naming, kernels, prefix)
