"""Finds residual blocks by what they compute.

Each module is run by itself; `branches` tells whether it is a residual block. No name of a class or
of a module matters. Of nested blocks the innermost counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from bnet_mm.models import dataflow
from bnet_mm.models.blocks import INVERTED, block_kind, norm_after_conv, positions_of
from bnet_mm.models.branches import UNDECIDED, Branch, plain_branch, residual_branch
from bnet_mm.models.dataflow import Run
from bnet_mm.models.residual_blocks import is_known

# Of the random map that a module is run on; small, and a multiple of usual strides.
SIZE = (16, 16)
# Without numbers it costs nothing, and clips of as many frames as networks have divide it.
BATCH = 240
# How many numbers of input channels are tried: that of the first convolution is mostly right.
TRIES = 4


@dataclass
class Block:
    """A residual block of a model.

    Attributes:
        name: of the module, with dots; '' for the model itself.
        inverted: whether its branch is wider inside than at its ends.
        norms: by letter, the name of each norm in the model.
        unexpanded: whether it is an inverted one without an expansion, and so without A.
    """

    name: str
    inverted: bool
    norms: dict[str, str]
    unexpanded: bool = False

    @property
    def papers(self) -> str:
        """The position that the paper gives it."""
        return 'A' if self.inverted else 'C'


def find_blocks(model: nn.Module, unknown: list[str] | None = None) -> list[Block]:
    """Returns the residual blocks of a model of any library, in the order of its modules.

    The blocks of plain ResNets are known. Each other module that is not too simple is run by itself
    on a small map, without numbers; one like another is not run again. An inverted block without a
    shortcut counts where others of its class have one.

    Args:
        model: any model; it stays as it is.
        unknown: takes the names of the innermost modules that do not run on a map alone, and of
            which nothing is known.

    Examples:
        >>> from torchvision.models import resnet18
        >>> [block.norms for block in find_blocks(resnet18())][:1]
        [{'A': 'layer1.0.bn1', 'C': 'layer1.0.bn2'}]
    """
    finder = _Finder(model)
    finder.visit('', model)
    blocks = sorted(finder.blocks(), key=lambda block: finder.order[block.name])
    if unknown is not None:
        known = {block.name for block in blocks}
        left = [name for name in finder.unknown if name not in known]
        unknown += [
            a for a in left if not any(b != a and f'{b}.'.startswith(f'{a}.') for b in left)
        ]
    return blocks


class _Finder:
    def __init__(self, model: nn.Module):
        self.model = model
        self.order = {name: i for i, (name, _) in enumerate(model.named_modules())}
        self.found: dict[str, Branch] = {}
        self.plain: dict[str, Branch] = {}
        self.known_blocks: list[str] = []
        self.unknown: list[str] = []
        self.known: dict[object, tuple[Branch | None, Branch | None] | None] = {}
        self.visited: dict[nn.Module, bool] = {}

    def visit(self, name: str, module: nn.Module) -> bool:
        """Looks for blocks in a module, once; returns whether there is one."""
        if module not in self.visited:
            self.visited[module] = self._visit(name, module)
        return self.visited[module]

    def _visit(self, name: str, module: nn.Module) -> bool:
        if is_known(module):
            self.known_blocks.append(name)
            return True
        inside = False
        for child, part in module.named_children():
            inside |= self.visit(f'{name}.{child}' if name else child, part)
        if inside or not _may_be_a_block(module):
            return inside
        branches = self._branches(module)
        if branches is None or branches[0] is UNDECIDED:
            self.unknown.append(name)
            return False
        residual, plain = branches
        if residual is not None:
            self.found[name] = residual
        elif plain is not None:
            self.plain[name] = plain
        return residual is not None

    def _branches(self, module: nn.Module) -> tuple[Branch | None, Branch | None] | None:
        signature = _signature(module)
        if signature not in self.known:
            run = _run(module)
            self.known[signature] = (
                None if run is None else (residual_branch(run), plain_branch(run))
            )
        return self.known[signature]

    def blocks(self) -> Iterator[Block]:
        """Yields the blocks, among them those that are known by others of their class."""
        inverted: dict[type, Branch] = {}  # the longest of a class
        examples: dict[type, Branch] = {}
        for name, branch in self.found.items():
            kind = type(self.model.get_submodule(name))
            examples.setdefault(kind, branch)
            longest = inverted.get(kind)
            if branch.is_inverted and (longest is None or len(longest.norms) < len(branch.norms)):
                inverted[kind] = branch
        for name in self.known_blocks:
            module = self.model.get_submodule(name)
            yield _block_by_name(name, module, str(block_kind(module)))
        for name, branch in self.found.items():
            yield _block(name, branch, inverted.get(type(self.model.get_submodule(name))))
        for name, branch in self.plain.items():
            like = inverted.get(type(self.model.get_submodule(name)))
            if like and (branch.is_inverted or _is_alike(branch, like)):
                yield _block(name, branch, like)
        for name in self.unknown:  # those that need a shortcut from outside, say
            module = self.model.get_submodule(name)
            example = examples.get(type(module))
            if example and set(example.norms) <= {part for part, _ in module.named_modules()}:
                yield _block(name, example, None)
            elif known := block_kind(module):
                yield _block_by_name(name, module, known)


def _block_by_name(name: str, module: nn.Module, kind: str) -> Block:
    """Returns a block of a class that is known."""
    prefix, norms = f'{name}.' if name else '', {}
    for letter, index in positions_of(module).items():
        own, norm = norm_after_conv(module, index)
        if norm is not None:
            norms[letter] = prefix + own
    return Block(name, kind == INVERTED, norms, kind == INVERTED and 'A' not in norms)


def _is_alike(branch: Branch, inverted: Branch) -> bool:
    """Tells whether a branch is like an inverted one that does not expand, or not by much."""
    kinds = inverted.depthwise
    return any(kinds) and branch.depthwise in (kinds, kinds[1:])


def _block(name: str, branch: Branch, inverted: Branch | None) -> Block:
    """Returns a block; `inverted` is the branch of another one of its class."""
    letters, is_inverted, unexpanded = branch.letters(), branch.is_inverted, False
    if not is_inverted and inverted is not None and _is_alike(branch, inverted):
        is_inverted = True
        unexpanded = len(branch.norms) < len(inverted.norms)
        if unexpanded:  # it has the others' B and C
            last = branch.norms[-2:]
            letters = {letter: norm for letter, norm in zip('BC'[-len(last) :], last) if norm}
    prefix = f'{name}.' if name else ''
    norms = {letter: prefix + norm for letter, norm in letters.items()}
    return Block(name, is_inverted, norms, unexpanded)


def _may_be_a_block(module: nn.Module) -> bool:
    if type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
        return False
    parts = list(module.modules())
    return len(parts) > 2 and any(dataflow.is_norm_like(part) for part in parts[1:])


def _signature(module: nn.Module) -> object:
    """Returns what two modules that compute the same have in common, but for their numbers."""
    plain = (bool, int, float, str, tuple, type(None))
    return tuple(
        (
            name,
            type(part),
            tuple(
                (key, str(entry)) for key, entry in vars(part).items() if isinstance(entry, plain)
            ),
            tuple((key, tuple(p.shape)) for key, p in part._parameters.items() if p is not None),
        )
        for name, part in module.named_modules()
    )


def _run(module: nn.Module) -> Run | None:
    """Runs a module on one small map; None where it does not take one."""
    channels = dict.fromkeys(
        weight.shape[1] * getattr(part, 'groups', 1)
        for part in module.modules()
        if isinstance(weight := getattr(part, 'weight', None), torch.Tensor) and weight.dim() == 4
    )
    counts = [*list(channels)[:TRIES], *(2 * count for count in list(channels)[:1])]  # if split
    for count in counts:
        for meta in (True, False):
            try:
                if meta:
                    input = torch.empty(BATCH, count, *SIZE, device='meta')
                else:
                    input = torch.randn(1, count, *SIZE)
                return dataflow.record(module, input, meta)
            except Exception as error:  # a module may fail in any way on what it does not take
                # torch says so of an operator that needs numbers: they are tried next.
                if 'meta' not in str(error).lower():
                    break
    return None
