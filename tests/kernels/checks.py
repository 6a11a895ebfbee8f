"""Compares the passes of back ends with float64, on whatever device is there.

Needs torch alone, and Triton for a GPU; pytest runs the same comparisons in test_kernels.py:

    python tests/kernels/checks.py --device cuda [--quick] [--k 5] [--json FILE]

Exit code 1 tells that a comparison failed, 2 that the device, or what it needs, is missing. On a
GPU most of the time is compilation, for many types and sizes, a few seconds each.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bnet_mm.text import without_prefix

if __name__ == '__main__':  # also where the package is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bnet_mm.kernels import cpu, eager, triton
from bnet_mm.kernels.backend import Backend

# Back ends and the devices that they run on.
BACKENDS = {'eager': (eager, 'cpu'), 'cpu': (cpu, 'cpu'), 'cuda': (triton, 'cuda')}
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
EPS = 1e-5
# One rounding of the result to its type, as a share of the largest that its terms can add up to.
ROUNDING = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}
DTYPES = {
    'eager': tuple(ROUNDING),
    'cpu': tuple(ROUNDING),
    'cuda': (torch.float32, torch.bfloat16, torch.float16),
}
SIZES = {'eager': (1, 3, 5, 7, 9), 'cpu': (1, 3, 5, 7, 9), 'cuda': triton.KERNEL_SIZES}
# Rows shorter and longer than a vector and than a block of channels; smaller than k; one pixel.
SHAPES = (
    (2, 24, 25, 42),
    (2, 5, 9, 11),
    (1, 40, 17, 70),
    (2, 5, 3, 2),
    (3, 33, 1, 2),
    (5, 3, 1, 1),
)
# Means around which variances are compared.
OFFSETS = dict.fromkeys(BACKENDS, (1e2, 1e4))
# What only one back end has a way of its own for. On a GPU more programs of a grid than the small
# maps need; on a CPU narrow maps of many channels, of some images and of many.
OWN_SHAPES = {'cuda': ((3, 70, 50, 67),), 'cpu': ((2, 70, 6, 7), (16, 272, 3, 5))}


@dataclass(frozen=True)
class Case:
    """A feature map `(N, C, H, W)` and the kernels that are applied to it."""

    shape: tuple[int, int, int, int]
    k: int
    dilation: int
    memory_format: str
    dtype: torch.dtype

    def __str__(self) -> str:
        dtype = without_prefix(str(self.dtype), 'torch.')
        shape = 'x'.join(map(str, self.shape))
        return f'{shape} {self.memory_format} {dtype} k={self.k} dilation={self.dilation}'


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        title: what was computed of which case.
        error: the largest error, as a share of the size of what is computed.
        allowed: what it may be.
    """

    title: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the error is small enough; NaN is not."""
        return self.error <= self.allowed


class Exact(NamedTuple):
    """Output, gradients, and the sum of dy over each channel, in float64."""

    y: Tensor
    x: Tensor
    weight: Tensor
    bias: Tensor
    sum_dy: Tensor


def failures(checks: Iterable[Check]) -> list[Check]:
    """Returns the comparisons that did not pass."""
    return [check for check in checks if not check.passed]


def draw(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns x, the output's gradient, weight and bias of a case: the same on every machine."""
    generator = torch.Generator().manual_seed(case.k)
    channels, k = case.shape[1], case.k

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x, g = normal(2, *case.shape)
    x = x * (0.5 + normal(channels, 1, 1).abs()) + normal(channels, 1, 1)
    x, g = (t.to(case.dtype).contiguous(memory_format=FORMATS[case.memory_format]) for t in (x, g))
    acc_dtype = accumulate_type(case.dtype)
    weight, bias = normal(channels, 1, k, k) / k, normal(channels)
    return x, g, weight.to(acc_dtype), bias.to(acc_dtype)


def accumulate_type(dtype: torch.dtype) -> torch.dtype:
    """Returns the type of statistics and of the kernels' gradients."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def spread(per_channel: Tensor) -> Tensor:
    """Returns `(C,)` as `(C, 1, 1)`."""
    return per_channel[:, None, None]


def convolve(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """Returns the depthwise convolution as a sum of shifted feature maps, without torch's own."""
    k = weight.shape[-1]
    height, width = x.shape[2:]
    padded = F.pad(x, (dilation * (k // 2),) * 4)
    y = spread(bias).expand_as(x)
    for i, j in product(range(k), repeat=2):
        top, left = i * dilation, j * dilation
        shifted = padded[:, :, top : top + height, left : left + width]
        y = y + spread(weight[:, 0, i, j]) * shifted
    return y


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of each channel in float64."""
    mean = x.double().mean((0, 2, 3))
    return mean, (x.double() - spread(mean)).square().mean((0, 2, 3))


def exact(
    x: Tensor, g: Tensor, weight: Tensor, bias: Tensor, dilation: int, frozen: tuple | None
) -> Exact:
    """Returns the layer in float64 with autograd's gradients.

    Args:
        x, g, weight, bias, dilation: of a case.
        frozen: mean and invstd that are constants; None for the batch's own.
    """
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, weight, bias))
    if frozen:
        mean, invstd = (t.double() for t in frozen)
    else:
        mean, var = moments(x)
        invstd = (var + EPS).rsqrt()
    x_hat = (x - spread(mean)) * spread(invstd)
    x_hat.retain_grad()
    y = convolve(x_hat, weight, bias, dilation)
    y.backward(g.double())
    return Exact(y.detach(), x.grad, weight.grad, bias.grad, x_hat.grad.sum((0, 2, 3)))


def compare(backend: Backend, device: str, case: Case) -> Iterator[Check]:
    """Compares all passes over one feature map with float64, batch statistics and frozen ones."""
    inputs = draw(case)
    on_device = [t.to(device) for t in inputs]
    x = on_device[0]
    reason = backend.unsupported(x, case.k, case.dilation)
    if reason:
        yield Check(f'support ({reason}): {case}', math.nan, 0)
        return
    acc_dtype = accumulate_type(case.dtype)
    mean, var = moments(inputs[0])
    yield from compare_statistics(backend.statistics(x), mean, var, f'statistics: {case}')
    yield from compare_statistics(
        combined_statistics(backend, x), mean, var, f'statistics of images, combined: {case}'
    )
    batch = mean.to(acc_dtype), (var + EPS).rsqrt().to(acc_dtype)
    other = (mean + 0.5).to(acc_dtype), (var + 1).rsqrt().to(acc_dtype)
    for statistics, frozen in ((batch, False), (other, True)):
        wanted = exact(*inputs, case.dilation, statistics if frozen else None)
        title = f'{"frozen" if frozen else "batch"} statistics: {case}'
        found = compare_forward(backend, on_device, statistics, wanted, frozen, case)
        for part, error, allowed in (
            *found,
            *compare_backward(backend, on_device, statistics, wanted, frozen, case),
        ):
            yield Check(f'{part}, {title}', error, allowed)


def compare_statistics(found: tuple, mean: Tensor, var: Tensor, title: str) -> Iterator[Check]:
    """Compares mean and variance with those in float64."""
    rounding = ROUNDING[found[0].dtype]
    yield Check(f'mean, {title}', share(found[0], mean, var.sqrt() + mean.abs() / 100), rounding)
    yield Check(f'variance, {title}', share(found[1], var, var + 1e-12), 5 * rounding)


def combined_statistics(backend: Backend, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the statistics of a batch from those of its images, as processes do."""
    parts = [backend.statistics(image) for image in x.split(1)]
    means, variances = (torch.stack(part) for part in zip(*parts))
    mean = means.mean(0)
    return mean, (variances + (means - mean) ** 2).mean(0)


def compare_forward(
    backend: Backend, inputs: list, statistics: tuple, wanted: Exact, frozen: bool, case: Case
) -> Iterator[tuple[str, float, float]]:
    """Compares outputs, and how they lie in memory; yields part, error and what is allowed."""
    x, g, weight, bias = inputs
    rounding, dilation = ROUNDING[case.dtype], case.dilation
    mean, invstd = (t.to(x.device) for t in statistics)
    scale = wanted.y.abs().max().clamp_min(1)
    y = backend.forward(x, weight, bias, mean, invstd, dilation)
    yield 'forward', share(y, wanted.y, scale), rounding
    yield 'type and memory format of the output', unlike(y, x, case), 0
    if case.k == 3:  # the end of a residual block
        ended = backend.forward(x, weight, bias, mean, invstd, dilation, g, True)
        residual = g.double().cpu()
        y = wanted.y + residual
        yield 'residual and ReLU', share(ended, y.relu(), y.abs().max().clamp_min(1)), rounding
        if frozen:
            alone = backend.forward(x, weight, bias, None, None, dilation, g)
            y = convolve(*(t.double().cpu() for t in (x, weight, bias)), dilation) + residual
            yield 'residual, not normalized', share(alone, y, y.abs().max().clamp_min(1)), rounding
    if not frozen:
        y, *found = backend.forward_training(x, weight, bias, EPS, dilation)
        yield 'forward_training', share(y, wanted.y, scale), rounding
        mean, var = moments(x.cpu())
        for check in compare_statistics(found, mean, var, 'forward_training'):
            yield check.title, check.error, check.allowed
        allowed = 5 * ROUNDING[found[2].dtype]
        invstd = (var + EPS).rsqrt()
        yield 'invstd, forward_training', share(found[2], invstd, invstd), allowed


def compare_backward(
    backend: Backend, inputs: list, statistics: tuple, wanted: Exact, frozen: bool, case: Case
) -> Iterator[tuple[str, float, float]]:
    """Compares the backward pass, whole and in its two halves, as `compare_forward` does."""
    x, g, weight, _ = inputs
    rounding, sums_rounding = ROUNDING[case.dtype], ROUNDING[statistics[0].dtype]
    mean, invstd = (t.to(x.device) for t in statistics)
    arguments = g, x, weight, mean, invstd
    # Sums of changing sign: float32 is as good as the size of their terms lets it be.
    terms = g.double().abs().sum((0, 2, 3)).max().cpu()
    scale = (statistics[1] * inputs[2].abs().sum((1, 2, 3)).cpu()).max() * g.abs().max().cpu()
    sums = backend.backward_reduce(*arguments, case.dilation)
    mean_dy, mean_dy_xmu = means_of(sums, x, weight)
    means = (None, None) if frozen else (mean_dy, mean_dy_xmu)
    halves = backend.backward_input(*arguments, *means, case.dilation), *sums
    whole = backend.backward(*arguments, case.dilation, frozen)
    for title, gradients in (('backward in halves', halves), ('backward', whole)):
        grad_x, *grads = gradients
        yield f'x, {title}', share(grad_x, wanted.x, scale), rounding
        yield f'type and memory format of x, {title}', unlike(grad_x, x, case), 0
        for name, found in zip(('weight', 'bias', 'sum_dy'), grads):
            expected = getattr(wanted, name)
            yield f'{name}, {title}', share(found, expected, terms), sums_rounding


def means_of(sums: tuple, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean_dy and mean_dy_xmu from what `backward_reduce` gives."""
    count = x.numel() // x.shape[1]
    return sums[2] / count, (weight * sums[0]).sum((1, 2, 3)) / count


def share(found: Tensor, wanted: Tensor, scale: Tensor) -> float:
    """Returns the largest error over `scale`, taken in float64; NaN for another shape."""
    if found.shape != wanted.shape:
        return math.nan
    return ((found.double().cpu() - wanted).abs() / scale).max().item()


def unlike(found: Tensor, x: Tensor, case: Case) -> float:
    """Returns 0, or 1 for what has another type or memory format than x."""
    dense = found.is_contiguous(memory_format=FORMATS[case.memory_format])
    return float(not dense or found.dtype != x.dtype)


def far_means(backend: Backend, device: str, offset: float) -> Iterator[Check]:
    """Compares variances around means that are far larger: squares would cancel."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 64, 56, 56, generator=generator)
    for name, memory_format in FORMATS.items():
        far = (x + offset).contiguous(memory_format=memory_format)
        var = moments(far)[1]
        found = backend.statistics(far.to(device))[1]
        yield Check(f'variance around {offset:g}: {name}', share(found, var, var), 1e-5)


def repeatability(
    backend: Backend, device: str, dtypes: Iterable[torch.dtype], times: int = 5
) -> Iterator[Check]:
    """Runs the passes several times on equal inputs: results must be equal to the bit."""
    for memory_format, dtype in product(FORMATS, dtypes):
        case = Case((2, 256, 50, 84), 5, 1, memory_format, dtype)
        x, g, weight, bias = (t.to(device) for t in draw(case))

        def step(x=x, g=g, weight=weight, bias=bias) -> tuple[Tensor, ...]:
            y, mean, var, invstd = backend.forward_training(x, weight, bias, EPS, 1)
            arguments = g, x, weight, mean, invstd
            sums = backend.backward_reduce(*arguments, 1)
            grad_x = backend.backward_input(*arguments, *means_of(sums, x, weight), 1)
            return y, mean, var, *sums, grad_x, *backend.backward(*arguments, 1, False)

        first = step()
        different = sum(not torch.equal(a, b) for _ in range(times) for a, b in zip(first, step()))
        yield Check(f'results that differ from run to run: {case}', float(different), 0)


@contextmanager
def memory_of_nan() -> Iterator[None]:
    """Lets torch fill what it allocates with NaN: nothing can pass for computed by chance.

    It fixes Triton's block sizes, too: to compile all of them for all types takes far longer.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def all_checks(name: str, sizes: Iterable[int], quick: bool) -> Iterator[Check]:
    """Makes every comparison of a back end; `quick` leaves out most shapes."""
    backend, device = BACKENDS[name]
    shapes = SHAPES[:1] if quick else (*SHAPES, *OWN_SHAPES.get(name, ()))
    with memory_of_nan():
        for memory_format, dtype, k, dilation in product(FORMATS, DTYPES[name], sizes, (1, 2)):
            for shape in shapes:
                yield from compare(backend, device, Case(shape, k, dilation, memory_format, dtype))
    for offset in OFFSETS[name]:
        yield from far_means(backend, device, offset)
    yield from repeatability(backend, device, DTYPES[name])


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--quick', action='store_true', help='fewer shapes and kernel sizes')
    parser.add_argument('--k', type=int, nargs='+', help='kernel sizes (all; quick: 5)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the outcome there')
    args = parser.parse_args()
    names = ['cuda'] if args.device == 'cuda' else ['eager', 'cpu']
    if args.device == 'cuda' and not torch.cuda.is_available():
        print('torch finds no GPU here: nothing was checked', file=sys.stderr)
        return 2
    for name in names:
        backend, device = BACKENDS[name]
        if reason := backend.unsupported(torch.ones(1, 1, 1, 1, device=device), 3, 1):
            print(f'{backend.name} were not checked: {reason}', file=sys.stderr)
            return 2
    gpu = torch.cuda.get_device_name() if args.device == 'cuda' else None
    print(*filter(None, (gpu, f'torch {torch.__version__}')), sep=', ')
    outcome = {'gpu': gpu, 'torch': torch.__version__, 'backends': {}}
    for name in names:
        sizes = args.k or ([5] if args.quick else SIZES[name])
        checks = list(all_checks(name, sizes, args.quick))
        failed = failures(checks)
        for check in failed[:40]:
            print(f'FAILED {check.title}: error {check.error:.2e}, allowed {check.allowed:.0e}')
        worst = max((c for c in checks if c.allowed), key=lambda c: c.error / c.allowed)
        print(
            f'{BACKENDS[name][0].name}: {len(checks) - len(failed)} checks passed, {len(failed)} '
            f'failed; closest to what is allowed: {worst.error:.2e} of {worst.allowed:.0e}, '
            f'{worst.title}'
        )
        outcome['backends'][name] = {
            'checks': len(checks),
            'failed': [asdict(check) for check in failed],
            'closest': asdict(worst),
        }
    if args.json:
        args.json.write_text(json.dumps(outcome, indent=1) + '\n')
    return int(any(of['failed'] for of in outcome['backends'].values()))


if __name__ == '__main__':
    sys.exit(main())
