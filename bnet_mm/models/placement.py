"""Placement: replaces chosen norms of a built network by BNET."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import call_before_loading
from bnet_mm.layers import EnhancedNorm
from bnet_mm.layers.kinds import PLAIN_NORMS
from bnet_mm.models.authors import rename_kernels_on_load
from bnet_mm.models.finding import find_blocks
from bnet_mm.models.norms import FROZEN, enhanced, problem_of


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
        model: any torch model. Its residual blocks are found by what they compute, whatever
            their classes (`bnet_mm.models.finding`).
        k: kernel size, odd.
        positions: which norms. None is the paper's place: after the last convolution of a residual
            block (C of table 10), after the expansion of an inverted one (MobileNetV2, table 3); in
            a model without residual blocks every norm, with a warning. Otherwise letters: A after
            the first convolution, B after the one in the middle, C after the last (a block of two
            has no B; an inverted one that does not expand has no A). 'all' is every batch norm of
            the model, stem and downsample included, or every other norm where it has no batch norm.
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
    for remark in place(model, positions, lambda norm: enhanced(norm, k, dilation)):
        warnings.warn(remark, stacklevel=2)
    call_before_loading(model, rename_kernels_on_load)
    return model


def place(
    model: nn.Module,
    positions: str | None,
    replaced_by: Callable[[nn.Module], nn.Module],
    again: bool = False,
) -> list[str]:
    """Replaces norms, and returns what should be said of the choice.

    Args:
        model: changed in place.
        positions: as `enhance` takes them.
        replaced_by: makes what takes the place of a norm.
        again: whether norms that are enhanced already are passed over.

    Raises:
        InputError: as `enhance`; nothing was changed.
    """
    positions = check_positions(positions)
    where = "the paper's position" if positions is None else f'positions={positions!r}'
    cannot = f'BNET cannot be placed at {where} of {type(model).__name__}'
    places, remarks = _places(model, positions, cannot)
    if again:
        places = [(name, norm) for name, norm in places if not isinstance(norm, EnhancedNorm)]
    _replace(model, places, replaced_by, cannot)
    return remarks


def enhance_at(model: nn.Module, kernels: Mapping[str, tuple[int, int]]) -> nn.Module:
    """Turns named norms of a built model into BNET, in place, as `enhance` does.

    Args:
        model: any torch model.
        kernels: name of each norm -> its k and dilation. A norm with several names has one of each.

    Returns:
        `model`.

    Raises:
        InputError: one of them cannot become BNET; nothing was changed.

    Example:
        >>> model = enhance_at(nn.Sequential(nn.BatchNorm2d(4)), {'0': (5, 2)})
        >>> model[0].k, model[0].dilation
        (5, 2)
    """
    norms = dict(model.named_modules(remove_duplicate=False))
    places = [(name, norms.get(name)) for name in kernels]
    sizes = {norm: kernels[name] for name, norm in places if norm is not None}
    cannot = f'BNET cannot be placed in {type(model).__name__}'
    _replace(model, places, lambda norm: enhanced(norm, *sizes[norm]), cannot)
    call_before_loading(model, rename_kernels_on_load)
    return model


def _replace(
    model: nn.Module,
    places: list[tuple[str, nn.Module | None]],
    replaced_by: Callable[[nn.Module], nn.Module],
    cannot: str,
) -> None:
    problems = [f'{name} {problem}' for name, norm in places if (problem := problem_of(norm))]
    if problems:
        shown = '; '.join(problems[:5]) + ('; ...' if len(problems) > 5 else '')
        raise InputError(f'{cannot}, nothing was changed: {shown}')
    # All are made before one is placed, and a norm that is used in two places is one afterwards.
    made: dict[nn.Module, nn.Module] = {}
    for _, norm in places:
        if norm is not None and norm not in made:
            made[norm] = replaced_by(norm)
    for name, norm in places:
        if norm is not None:
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, made[norm])


def _places(
    model: nn.Module, positions: str | None, cannot: str
) -> tuple[list[tuple[str, nn.Module | None]], list[str]]:
    """Returns the norms to replace, and what should be said of the choice."""
    norms = _all_norms(model)
    if not norms:
        raise InputError(f'{cannot}: it has no norm over maps of (N, C, H, W)')
    if positions == 'all':
        return norms, []
    unknown: list[str] = []
    blocks = find_blocks(model, unknown)
    if not blocks and positions is not None:
        raise InputError(
            f'{cannot}: it has no residual blocks, which alone have these positions; leave '
            f'positions out, and all its {len(norms)} norms are BNET'
        )
    if not blocks:
        name, kinds = type(model).__name__, {type(model.get_submodule(n)).__name__ for n in unknown}
        kinds.discard(name)
        unsure = f' that could be found ({", ".join(sorted(kinds))} cannot be told by itself)'
        return norms, [
            f'{name} has no residual blocks{unsure if kinds else ""}: all {len(norms)} norms are '
            f'BNET'
        ]
    places: list[tuple[str, nn.Module | None]] = []
    lacking = []
    for block in blocks:
        # A basic block has no B: 'ABC' is every norm it has, 'B' alone asks for what is not there.
        chosen = [letter for letter in positions or block.papers if letter in block.norms]
        places += [(name := block.norms[k], model.get_submodule(name)) for k in chosen]
        if not chosen and not block.unexpanded:  # the first block of every MobileNet
            lacking.append(block)
    if not places or (lacking and positions is not None):
        without = lacking or blocks  # none of which expands, and asked for is A
        kind = type(model.get_submodule(without[0].name)).__name__
        raise InputError(
            f'{cannot}, nothing was changed: {len(without)} of its {len(blocks)} residual blocks '
            f"have no norm there, {without[0].name}, a {kind}, for one; positions='all' is every "
            f'norm of the network'
        )
    remarks = []
    if lacking:
        shown = ', '.join(sorted({type(model.get_submodule(b.name)).__name__ for b in lacking}))
        remarks.append(
            f'{type(model).__name__}: {len(lacking)} of {len(blocks)} residual blocks ({shown}) '
            f'have no norm at the place of BNET and stay as they are'
        )
    return places, remarks


def _all_norms(model: nn.Module) -> list[tuple[str, nn.Module | None]]:
    """Returns every plain batch norm of a model or, where there is none, every other plain norm."""
    found: list[tuple[str, nn.Module | None]] = []
    others: list[tuple[str, nn.Module | None]] = []
    inside: set[nn.Module] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        if module in inside:
            continue
        if isinstance(module, PLAIN_NORMS) or type(module).__name__ in FROZEN:
            inside.update(module.modules())
            batch_norm = isinstance(module, _BatchNorm) or type(module).__name__ in FROZEN
            (found if batch_norm else others).append((name, module))
        elif isinstance(module, EnhancedNorm):
            inside.update(module.modules())
            found.append((name, module))
    return found or others
