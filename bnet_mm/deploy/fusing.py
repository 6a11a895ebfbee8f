"""Folds the norms of a trained model into its convolutions, and verifies the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnet_mm.deploy.centre_taps import centre_taps_to_norms
from bnet_mm.deploy.plain import make_plain, split_norms
from bnet_mm.deploy.recording import Recording, Run, record, runs_on
from bnet_mm.deploy.structure import (
    Fusion,
    ResidualBlock,
    Taps,
    fix_norms,
    folded_tensors,
    remains_of,
    replace,
    set_tensors,
    statistics_of,
)
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm
from bnet_mm.layers.plain import own_affine
from bnet_mm.models.blocks import last_norm, positions_of
from bnet_mm.openmmlab.running import tensors_in, weight_of

# Of outputs in float64, relative to an output's largest value.
TOLERANCE = 1e-9
# Of one piece in float64: twice the rounding of its weights to their own type, and that of the sums
# of the comparison itself, which counts where the weights are float64.
ROUNDINGS, SUMS = 2, 1e-12
TF32_EPS = 2.0**-10


def fuse(
    model: nn.Module,
    inputs: object = None,
    shape: tuple[int, int] | None = None,
    plain: bool = False,
) -> nn.Module:
    """Returns a copy of `model` for inference, with its batch norms folded into convolutions.

    The model is run, and every operator of the run recorded. A norm is folded into the
    convolution before it if all that this convolution ever gives goes into this norm alone; scale
    and shift of a batch norm go along. Of a BNET, the kernel and its bias remain, behind the
    convolution; one whose kernel is zero around the centre is a batch norm, and folded as such. In
    the residual blocks of torchvision, timm and OpenMMLab that end in BNET, the kernel, the
    addition and the ReLU become one call. Everything else stays as it was, and
    `fused.fusion` (a `Fusion`) says what and why.

    Two checks, both in float64: every convolution on what it was called with and on random feature
    maps, where its own norm may differ by the rounding of the new weights and no more; and all
    outputs of the runs, where the exact weights may differ by 1e-9 of the largest value. A model
    that cannot be run in float64 is compared in its own type.

    Args:
        model: a trained model; it is left as it is. It needs three times its memory.
        inputs: what it is run on: None for a random image (which OpenMMLab's models and
            networks of one image take); a tensor `(N, C, H, W)` or a tuple of tensors, its
            arguments, for these and for random ones; or a function that runs the model it is given
            and returns its outputs. That model is in float64.
        shape: height and width of the random image.
        plain: leaves no module or operator of this package: kernels become depthwise `nn.Conv2d`,
            and ends of blocks stay apart. Any exporter, tracer or quantizer takes the result.

    Returns:
        The folded copy, in evaluation mode. What is folded already comes back as a copy.

    Raises:
        InputError: the model cannot be copied or run on these inputs, or the folded one would not
            be equal to it.

    Examples:
        >>> from bnet_mm import BNET
        >>> fused = fuse(nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, k=5)))
        >>> fused.fusion.folded  # norm: the convolutions before it
        {'1': ['0']}
    """
    try:
        fused = deepcopy(model)
        fused.eval()  # which returns nothing in mmdet's backbones
        already = isinstance(getattr(model, 'fusion', None), Fusion)
        split = [] if already else split_norms(fused)
        precise = deepcopy(fused).double()
    except RuntimeError as error:
        raise InputError(f'{type(model).__name__} cannot be copied: {error}') from error
    if already:
        if plain and not model.fusion.plain:
            raise InputError(
                f'{type(model).__name__} is folded already, with modules of this package: fold the '
                f'trained model with plain=True'
            )
        return fused
    runs = runs_on(model, inputs, shape)
    try:
        with _default_type(torch.float64):
            recording = record(precise, runs)
    except InputError:
        raise
    except Exception:
        # Whatever a model, or a compiled operator in it, says of a type that it has not.
        precise = deepcopy(fused)
        with _any_failure(f'{type(model).__name__} cannot be run on these inputs'):
            recording = record(precise, runs)
    if not recording.outputs:
        raise InputError(f'{type(model).__name__} gave no tensors that could be compared')
    # After the recording, so that what follows is compared with the layers as they were trained.
    centred = centre_taps_to_norms(fused)
    centre_taps_to_norms(precise)
    fusion = Fusion(left=recording.left, split=split, centred=centred, plain=plain)
    _fold(fused, precise, recording, fusion)
    if plain:
        make_plain(precise)
        fusion.left.update(make_plain(fused))
    else:
        _join_ends(fused, precise, recording, fusion)
        fix_norms(fused)
        fix_norms(precise)
    fusion.difference = _compare(precise, runs, recording.outputs)
    with recording.choices.repeated():
        _try_out(fused, runs, recording.outputs)
    fused.fusion = fusion
    return fused


@contextmanager
def _any_failure(sentence: str) -> Iterator[None]:
    """Turns an exception into an InputError: a model may fail in any way where it does not fit."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().split('\n')[0][:200]
        raise InputError(
            f'{sentence} ({type(error).__name__}: {reason}): give fuse() inputs that it takes, or '
            f'another shape'
        ) from error


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    """Lets what a model makes itself, positions for one, have the type of its weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fold(fused: nn.Module, precise: nn.Module, recording: Recording, fusion: Fusion) -> None:
    """Folds in both models what can be folded, and moves the rest to what is left."""
    for name, convs in recording.sources.items():
        norm, exact = fused.get_submodule(name), precise.get_submodule(name)
        pieces = [(fused.get_submodule(c), precise.get_submodule(c), c) for c in convs]
        tensors = [folded_tensors(conv, norm) for conv, _, _ in pieces]
        problems = [
            _piece_problem(conv, trained, exact, *folded, recording.inputs[c])
            for (conv, trained, c), folded in zip(pieces, tensors)
        ]
        problem = next(filter(None, problems), None)
        if problem:
            fusion.left[name] = problem
            continue
        for (conv, trained, _), folded in zip(pieces, tensors):
            set_tensors(conv, *folded)
            set_tensors(trained, *folded)
        replace(fused, norm, remains_of(norm))
        replace(precise, exact, remains_of(exact))
        fusion.folded[name] = convs
        if isinstance(norm, EnhancedNorm):
            fusion.taps[name] = norm.k


def _piece_problem(
    conv: nn.Conv2d,
    trained: nn.Conv2d,
    norm: nn.Module,
    weight: Tensor,
    bias: Tensor,
    input: Tensor,
) -> str | None:
    """Returns why this convolution, with its new weights rounded, is not itself and its norm."""
    candidate = deepcopy(conv)
    set_tensors(candidate, weight, bias)
    if not (candidate.weight.isfinite().all() and candidate.bias.isfinite().all()):
        return f'folded, its values do not fit {conv.weight.dtype}'
    unit = ROUNDINGS * torch.finfo(conv.weight.dtype).eps + SUMS
    # How much each output can change where weights are rounded: as much as the sum of magnitudes.
    sizes = deepcopy(candidate).double()
    with torch.no_grad():
        sizes.weight.abs_()
        sizes.bias.abs_()
        random = torch.Generator().manual_seed(0)
        others = torch.randn(input.shape, generator=random, dtype=torch.float64).to(input.device)
        candidate, trained = candidate.double(), deepcopy(trained).double()
        for x in (input.double(), others):
            difference = (candidate(x) - _normalized(trained(x), norm)).abs()
            if not (difference <= unit * sizes(x.abs())).all():
                return 'its convolution computes more than it seems to'
    return None


def _normalized(x: Tensor, norm: nn.Module) -> Tensor:
    s = statistics_of(norm)
    tensors = (s.running_mean, s.running_var, *own_affine(s))
    return F.batch_norm(x, *(t if t is None else t.to(x) for t in tensors), False, 0.0, s.eps)


def _join_ends(fused: nn.Module, precise: nn.Module, recording: Recording, fusion: Fusion) -> None:
    """Joins, in both models, the ends of the residual blocks that end in BNET."""
    for name, block in list(precise.named_modules()):
        if not positions_of(block) or not isinstance(last_norm(block)[1], (EnhancedNorm, Taps)):
            continue
        joined = ResidualBlock.of(block, Taps)
        other = ResidualBlock.of(fused.get_submodule(name), Taps)
        problem = next((j for j in (joined, other) if isinstance(j, str)), None)
        input = recording.inputs.get(name)
        if problem is None and (input is None or name == ''):
            problem = 'it was not used on the sample input' if name else 'it is the whole model'
        if problem is None:
            with torch.no_grad():
                # Both may write into what they are given.
                expected, got = block(input.clone()), joined(input.clone())
            if not _difference(got, expected) <= _tolerance(precise):
                problem = 'it computes something else than its kind of block'
        if problem:
            fusion.apart[name] = problem
            continue
        replace(precise, block, joined)
        replace(fused, fused.get_submodule(name), other)
        fusion.ends.append(name)


def _compare(precise: nn.Module, runs: list[Run], expected: list[Tensor]) -> float:
    """Returns how far the folded model's outputs are from the trained one's, both unrounded."""
    exact = weight_of(precise).dtype == torch.float64
    with _default_type(torch.float64 if exact else torch.get_default_dtype()):
        return _checked_difference(
            precise,
            runs,
            expected,
            'an output differs by {:.1e} of its largest value, so it uses its convolutions or '
            'norms in a way that a run does not show, or it never gives the same twice',
        )


def _try_out(fused: nn.Module, runs: list[Run], expected: list[Tensor]) -> None:
    """Runs what is handed out, in its own type, against the outputs in float64."""
    dtype = weight_of(fused).dtype
    # A CPU may lack an operator for half precision.
    with _any_failure(f'{type(fused).__name__} cannot be run in {dtype}'):
        _checked_difference(
            fused,
            runs,
            expected,
            f'in {dtype} an output differs by {{:.1e}} of its largest value',
        )


@torch.no_grad()
def _checked_difference(
    model: nn.Module, runs: list[Run], expected: list[Tensor], sentence: str
) -> float:
    """Returns the largest relative difference of outputs, or says that it is too large."""
    outputs = [t for run in runs for t in tensors_in(run(model))]
    worst = largest_difference(outputs, expected)
    if not worst <= _tolerance(model):
        raise InputError(
            f'{type(model).__name__} would not stay equal when folded: {sentence.format(worst)}; '
            f'nothing was changed'
        )
    return worst


def largest_difference(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Returns the largest difference of outputs, each relative to what is its largest value.

    It is infinite where numbers or shapes differ, and NaN where there is one.
    """
    if len(outputs) != len(expected):
        return float('inf')
    differences = [_difference(a, b) for a, b in zip(outputs, expected)]
    # Not max(): it passes over NaN.
    return torch.tensor(differences, dtype=torch.float64).max().item()


def _difference(got: Tensor, expected: Tensor) -> float:
    if got.shape != expected.shape:
        return float('inf')
    if not expected.numel():
        return 0.0
    got, expected = got.double(), expected.double()
    scale = expected.abs().max().item()
    return (got - expected).abs().max().item() / (scale or 1.0)


def _tolerance(model: nn.Module) -> float:
    weight = weight_of(model)
    if weight.dtype == torch.float64:
        return TOLERANCE
    eps = torch.finfo(weight.dtype).eps
    # Convolutions of float32 on a GPU are of TF32 unless told otherwise.
    return max(eps, TF32_EPS if weight.is_cuda else 0.0) ** 0.5
