"""Placement: replaces chosen norms of a built network by BNET."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import call_before_loading
from bnet_mm.layers import (
    BNET,
    GNET,
    INET,
    SNET,
    BNControl,
    EnhancedNorm,
    SwitchNorm2d,
    SyncBNET,
    named_norms,
)
from bnet_mm.layers.kinds import PLAIN_NORMS
from bnet_mm.models.authors import rename_kernels_on_load
from bnet_mm.models.blocks import (
    BASIC_BLOCK,
    BOTTLENECK,
    INVERTED,
    PAPERS_POSITION,
    block_kind,
    norm_after_conv,
    positions_of,
)


def check_positions(positions: object) -> str | None:
    """Returns `positions` (None, 'all', or letters of A, B, C), or says what it should have been.

    Raises:
        InputError: it is anything else.
    """
    if positions is None or (
        isinstance(positions, str)
        and (
            positions == 'all'
            or (
                positions and set(positions) <= set('ABC') and len(set(positions)) == len(positions)
            )
        )
    ):
        return positions
    raise InputError(
        f"BNET: positions must be 'C' (the paper's choice in residual blocks), 'A', 'B', 'ABC' or "
        f"another choice of these letters, or 'all'; got positions={positions!r}"
    )


def enhance(
    model: nn.Module, k: int = 3, positions: str | None = None, dilation: int = 1
) -> nn.Module:
    """Turns norms of a built model into BNET, in place, without changing what it computes.

    Scales move to the centre taps, shifts to the biases; statistics, `eps`, `momentum`, device,
    type, training mode and `requires_grad` carry over. Either every chosen norm is replaced or, on
    an error, none. Afterwards `load_state_dict` takes plain batch norm's and this package's tensors
    and the paper's authors' (`layer1.0.bnet3.bnconv.weight`).

    A batch norm becomes `BNET`, a synchronized one `SyncBNET`, and of the paper's table 12 a group
    norm `GNET`, a switchable one `SNET` and an instance norm `INET`.

    Args:
        model: any torch model. Blocks are found by their class (`BasicBlock`, `Bottleneck` or
            `InvertedResidual`, or one derived from these), as in torchvision, timm and OpenMMLab.
        k: kernel size, odd.
        positions: which norms. None is the paper's place: after the last convolution of a basic or
            bottleneck block (C of table 10), after the 1x1 expansion of an inverted residual block
            (MobileNetV2, table 3). Otherwise letters: A after the first convolution, B after the
            3x3 in the middle, C after the last (a basic block has no B; an inverted one that does
            not expand has no A). 'all' is every batch norm of the model, stem and downsample
            included, or every other norm where it has no batch norm.
        dilation: distance between neighbouring taps, in pixels.

    Returns:
        `model`.

    Raises:
        InputError: a wrong argument, or a place without a norm that can be replaced; the message
            names each.

    Examples:
        >>> from torchvision.models import resnet18
        >>> model = enhance(resnet18(), k=3)
        >>> model.layer1[0].bn2.dw.weight.shape
        torch.Size([64, 1, 3, 3])
    """
    replace_norms(model, positions, lambda norm: _enhanced(norm, k, dilation))
    call_before_loading(model, rename_kernels_on_load)
    return model


def add_control(
    model: nn.Module, k: int = 3, positions: str | None = None, dilation: int = 1
) -> nn.Module:
    """Puts ReLU and a depthwise convolution behind batch norms, in place (paper, table 11).

    Arguments, return value and errors are those of `enhance`.
    """
    return replace_norms(model, positions, lambda norm: BNControl.from_norm(norm, k, dilation))


def replace_norms(
    model: nn.Module, positions: str | None, replaced_by: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Puts `replaced_by(norm)` in the place of each norm at `positions`, and returns `model`.

    Raises:
        InputError: as `enhance`; nothing was changed.
    """
    positions = check_positions(positions)
    where = "the paper's position" if positions is None else f'positions={positions!r}'
    chosen: dict[str, nn.Module] = {}
    problems = []
    for name, norm in _norms_at(model, positions):
        problem = _problem(norm)
        if problem or norm is None:
            problems.append(f'{name} {problem}')
        else:
            chosen[name] = norm
    if problems:
        shown = '; '.join(problems[:5]) + ('; ...' if len(problems) > 5 else '')
        raise InputError(
            f'BNET cannot be placed at {where} of {type(model).__name__}, nothing was changed: '
            f'{shown}'
        )
    if not chosen:
        lacking = 'no norm'
        if positions != 'all':
            lacking = f'no block of a class called {BASIC_BLOCK}, {BOTTLENECK} or {INVERTED}'
            if any(block_kind(block) for block in model.modules()):
                lacking = 'no block with a norm there'
            norms = [_problem(norm) for _, norm in _norms_at(model, 'all')]
            if norms and not any(norms):
                lacking += f"; positions='all' would enhance its {len(norms)} norms"
        raise InputError(
            f'BNET cannot be placed at {where} of {type(model).__name__}: it has {lacking}'
        )
    # All are made before one is placed, and a norm that is used in two places is one afterwards.
    made: dict[nn.Module, nn.Module] = {}
    for norm in chosen.values():
        if norm not in made:
            made[norm] = replaced_by(norm)
    for name, norm in chosen.items():
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, made[norm])
    return model


def _norms_at(model: nn.Module, positions: str | None) -> Iterator[tuple[str, nn.Module | None]]:
    """Yields name and module of each place; None where the block has no such norm."""
    if positions == 'all':
        yield from _all_norms(model)
        return
    for prefix, block in model.named_modules():
        kind, known = block_kind(block), positions_of(block)
        if kind is None:
            continue
        # A basic block has no B: 'ABC' is every norm it has, 'B' alone asks for what is not there.
        asked = positions or PAPERS_POSITION[kind]
        indices = [known[letter] for letter in asked if letter in known]
        if not indices:
            yield f'position {positions} of {prefix}, a {kind},', None
        for index in indices:
            name, norm = norm_after_conv(block, index)
            if norm is None and kind == INVERTED and index == known['A']:
                continue  # the first block of every MobileNet does not expand
            yield f'{prefix}.{name}' if prefix else name, norm


def _all_norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields every plain batch norm of a model or, where there is none, every other plain norm."""
    norms = list(named_norms(model, PLAIN_NORMS, repeated=True))
    batch_norm = nn.modules.batchnorm._BatchNorm
    yield from [(name, norm) for name, norm in norms if isinstance(norm, batch_norm)] or norms


def _problem(norm: nn.Module | None) -> str | None:
    """Returns why a module cannot become BNET, or None."""
    if norm is None:
        return 'does not exist'
    if isinstance(norm, EnhancedNorm):
        return 'is enhanced already'
    # Exact types: a subclass may do more than normalize (timm's BatchNormAct2d also activates).
    # Two, known by name, only differ in how they check the input.
    if type(norm) in (nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, SwitchNorm2d) or (
        isinstance(norm, nn.modules.batchnorm._BatchNorm)
        and type(norm).__name__ in ('SyncBatchNorm', '_BatchNormXd')
    ):
        return None
    return f'is a {type(norm).__name__}, not a BatchNorm2d or SyncBatchNorm'


def _enhanced(norm: nn.Module, k: int, dilation: int) -> EnhancedNorm:
    kinds = (
        (nn.SyncBatchNorm, SyncBNET),
        (nn.modules.batchnorm._BatchNorm, BNET),
        (nn.GroupNorm, GNET),
        (SwitchNorm2d, SNET),
        (nn.InstanceNorm2d, INET),
    )
    layer = next(layer for kind, layer in kinds if isinstance(norm, kind))
    return layer.from_norm(norm, k, dilation)
