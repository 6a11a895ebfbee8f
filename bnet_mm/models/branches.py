"""The branch of a residual block, from a run of it.

A residual block is a module whose output is (the activation of) the sum of a branch and a shortcut
that start from the same tensor, in the module itself. Its norms have the letters of the paper's
table 10: A after the first convolution of the branch, B after the one in the middle, C after the
last.

Sums of different tensors are no blocks (pyramids, fusions of resolutions, decoders), nor are sums
of parts of one (Res2Net's splits) or of several branches side by side (RepVGG).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bnet_mm.models.dataflow import ADD, CONV, GATE, JOIN, NORM, RESIZE, UNARY, Run, Step

# What a shortcut may be made of, besides at most one convolution.
PASSING = (NORM, UNARY, RESIZE, JOIN)


@dataclass
class Branch:
    """The main path of a block, or of a module like one.

    Attributes:
        norms: names of the norms after its convolutions, in order; '' where there is none.
        widths: channels at the start, and after each of these convolutions.
        depthwise: whether each of them is a depthwise one.
    """

    norms: list[str]
    widths: list[int]
    depthwise: list[bool]

    @property
    def is_inverted(self) -> bool:
        """Whether it is wider inside than at its ends."""
        inside = self.widths[1:-1]
        return bool(inside) and max(inside) > max(self.widths[0], self.widths[-1])

    def letters(self) -> dict[str, str]:
        """Returns the names of the norms by position; one that has no norm is absent."""
        first, last = 0, len(self.norms) - 1
        if self.is_inverted:  # after the convolution that expands
            first = next(i for i, width in enumerate(self.widths[1:]) if width > self.widths[0])
        places = {'A': first, 'B': first + 1, 'C': last}
        if last - first != 2:
            del places['B']  # none, or one of several
        if last == first:
            del places['A']
        return {letter: self.norms[i] for letter, i in places.items() if self.norms[i]}


# Where a sum has two branches that are alike: others of the class may tell which is which.
UNDECIDED = Branch([], [], [])


def residual_branch(run: Run) -> Branch | None:
    """Returns the branch of a residual block from a run of it, or None where it is not one."""
    branches = [_branch_of(step) for output in run.outputs for step in _parts(output)]
    if not branches or any(branch is None for branch in branches):
        return None
    first = branches[0]
    return first if all(branch == first for branch in branches) else None


def _parts(output: Step) -> list[Step]:
    """Returns the maps that an output joins along the batch; else the output."""
    joined = output.kind == JOIN and all(p.shape[1:] == output.shape[1:] for p in output.parents)
    return output.parents if joined else [output]


def plain_branch(run: Run) -> Branch | None:
    """Returns the path through a module that has no shortcut, or None where there is none."""
    if len(run.outputs) != 1:
        return None
    return _path(run.outputs[0], run.input)


def _branch_of(output: Step) -> Branch | None:
    total = output
    while total.kind == UNARY and len(total.parents) == 1:
        total = total.parents[0]
    if total.kind != ADD or len(total.parents) != 2:
        return None
    if total.parents[0].shape != total.parents[1].shape or len(total.shape) != 4:
        return None
    found = []
    for branch, shortcut in (total.parents, total.parents[::-1]):
        reached = set(branch)
        fork, convs = _fork(shortcut, reached)
        if fork is None or fork is branch:
            continue
        if any(part.kind == ADD and part is not fork for part in total.parents):
            continue  # several branches side by side
        path = _path(branch, fork)
        if path is not None:
            found.append((convs, -len(path.norms), path))
    if len(found) == 2 and found[0][:2] == found[1][:2]:
        return UNDECIDED
    # The shortcut is the one with fewer convolutions.
    return min(found, key=lambda item: item[:2])[2] if found else None


def _fork(shortcut: Step, reached: set[Step]) -> tuple[Step | None, int]:
    """Returns where a shortcut leaves the branch, and how many convolutions it has."""
    step, convs, normalized = shortcut, 0, False
    while step not in reached:
        if step.kind == CONV:
            convs += 1
        elif step.kind not in PASSING:
            return None, convs
        normalized |= step.kind == NORM
        if convs > 1 or not step.parents:
            return None, convs
        step = step.parents[0]
    if normalized and not convs:
        return None, convs  # an identity with a norm is one of several branches side by side
    return step, convs


def _path(end: Step, start: Step) -> Branch | None:
    """Returns the main path from `start` to `end`: past gates, along the first of joined parts.

    Where several maps are joined after the last convolutions, none of these has a norm of its own.
    """
    inside = {step for step in end if start in set(step)}
    if start not in inside:
        return None
    norms: list[str] = []
    widths: list[int] = []
    depthwise: list[bool] = []
    step, norm, joined = end, '', False  # the norm that waits for its convolution
    while step is not start:
        if step.kind == NORM:
            norm = step.module
        elif step.kind == CONV:
            norms.append(norm)
            widths.append(step.shape[1])
            depthwise.append(step.depthwise)
            norm = ''
        elif not norms and not norm and step.kind not in (UNARY, RESIZE, GATE):
            joined = True
        parent = _main_parent(step, inside)
        if parent is None:
            return None
        step = parent
    if not norms:
        return None
    if joined:
        norms[0] = ''
    widths.append(start.shape[1])
    return Branch(norms[::-1], widths[::-1], depthwise[::-1])


def _main_parent(step: Step, inside: set[Step]) -> Step | None:
    parents = [parent for parent in step.parents if parent in inside]
    if len(parents) > 1 and step.kind == GATE:
        # A gate is computed from what it opens, or smaller.
        first, second = parents[:2]
        if first in set(second) and first is not second:
            return first
        if second in set(first) and first is not second:
            return second
        return max(parents, key=lambda parent: _size(parent.shape))
    return parents[0] if parents else None


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
