"""Checks the Triton kernels on a GPU against float64, then times them at the sites of ResNet-50.

Needs torch, Triton and an NVIDIA or AMD GPU; from the repository's root:

    python benchmarks/gpu_check.py [--quick] [--only-check] [--k 5] [--json FILE]

Most of its time is compilation, for many types and sizes, a few seconds each.

The times are those of a training step's forward and backward pass through the norm after the last
1x1 convolution of each stage, two images of 1333x800. The limit is what batch normalization itself
must move through memory (forward: read twice, write once; backward: read both maps twice, write
once), at the bandwidth of a copy measured beside it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
SITES = [(256, 200, 334), (512, 100, 167), (1024, 50, 84), (2048, 25, 42)]
FORMATS = {'nchw': torch.contiguous_format, 'channels_last': torch.channels_last}
DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
EPS = 1e-5
# One rounding of the result to its type, as a share of the largest that its terms can add up to.
ROUNDING = {torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}


def load_kernels():
    """Returns the module of kernels, without the rest of the package, which may need more."""
    path = ROOT / 'bnet_mm' / 'kernels' / 'triton_kernels.py'
    spec = importlib.util.spec_from_file_location('triton_kernels', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        case: what was computed on which map.
        error: its largest error, as a share of `allowed`'s scale.
        allowed: what it may be.
    """

    case: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the error is small enough; NaN is not."""
        return self.error <= self.allowed


def error(actual: Tensor, expected: Tensor, scale: Tensor | float = 1.0) -> float:
    """Returns the largest difference, divided by `scale`.

    Args:
        actual, expected, scale: of shapes that broadcast; the difference is taken in float64.
    """
    difference = ((actual.double() - expected).abs() / scale).flatten()
    return difference.max().item() if difference.numel() else 0.0


def draw(shape: tuple, k: int, memory_format: torch.memory_format, dtype: torch.dtype) -> tuple:
    """Returns an input, a gradient of its shape, kernels `(C, 1, k, k)` and biases `(C,)`.

    Args:
        shape: `(N, C, H, W)`.
    """
    channels = shape[1]
    maps = torch.randn(2, *shape, device='cuda')
    maps[0] = maps[0] * (0.5 + torch.rand(channels, 1, 1, device='cuda'))
    maps[0] += torch.randn(channels, 1, 1, device='cuda')
    x, g = (part.to(dtype).contiguous(memory_format=memory_format) for part in maps)
    weight = torch.randn(channels, 1, k, k, device='cuda') / k
    return x, g, weight, torch.randn(channels, device='cuda')


def by_channel(values: Tensor) -> Tensor:
    """Returns `(C,)` as `(C, 1, 1)`."""
    return values[:, None, None]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Returns the depthwise convolution of `(N, C, H, W)` as a sum of shifted maps.

    Nothing of it is the code that is checked, nor a library's.
    """
    k = weight.shape[-1]
    margin = dilation * (k // 2)
    height, width = x.shape[2:]
    padded = F.pad(x, (margin,) * 4)
    y = torch.zeros_like(x) if bias is None else by_channel(bias).expand_as(x)
    for i, j in product(range(k), repeat=2):
        top, left = i * dilation, j * dilation
        shifted = padded[:, :, top : top + height, left : left + width]
        y = y + by_channel(weight[:, 0, i, j]) * shifted
    return y


def combined_statistics(kernels, x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the statistics of `(N, C, H, W)` from those of its images, as processes do."""
    parts = [kernels.statistics(part) for part in x.split(1)]
    means, variances = (torch.stack(part) for part in zip(*parts, strict=True))
    mean = means.mean(0)
    return mean, (variances + (means - mean) ** 2).mean(0)


def check_case(
    kernels, shape: tuple, k: int, dilation: int, layout: str, dtype: torch.dtype
) -> Iterator[Check]:
    """Compares all passes at one map with float64, with batch statistics and with frozen ones.

    Args:
        shape: `(N, C, H, W)`.
        layout: name of its memory format.
    """
    name = f'{layout} {dtype} k={k} dilation={dilation} {"x".join(map(str, shape))}'.replace(
        'torch.', ''
    )
    rounding = ROUNDING[dtype]
    x, g, weight, bias = draw(shape, k, FORMATS[layout], dtype)
    reason = kernels.unsupported(x, k, dilation)
    if reason:
        raise SystemExit(f'The kernels do not take what they are for ({name}): {reason}.')
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    count = x.numel() // x.shape[1]
    var, mean = torch.var_mean(exact[0].detach(), (0, 2, 3), correction=0)
    for title, found in (
        ('statistics', kernels.statistics(x)),
        ('statistics of pieces, combined', combined_statistics(kernels, x)),
    ):
        spread = var.sqrt() + mean.abs() / 100
        yield Check(f'{title}, mean: {name}', error(found[0], mean, spread), 2e-6)
        yield Check(f'{title}, variance: {name}', error(found[1], var, var + 1e-12), 1e-5)
    mean, invstd = mean.float(), (var + EPS).rsqrt().float()
    for frozen in (False, True):
        title = f'{"frozen" if frozen else "train"} {name}'
        x64, weight64, bias64 = exact
        for tensor in exact:
            tensor.grad = None
        if frozen:
            normalized = (x64 - by_channel(mean)) * by_channel(invstd)
        else:
            batch_var, batch_mean = torch.var_mean(x64, (0, 2, 3), correction=0)
            scale = (batch_var + EPS).rsqrt()
            normalized = (x64 - by_channel(batch_mean)) * by_channel(scale)
        normalized.retain_grad()
        y64 = convolve(normalized, weight64, bias64, dilation)
        y64.backward(g.double())

        y = kernels.forward(x, weight, bias, mean, invstd, dilation)
        scale = y64.detach().abs().max()
        yield Check(f'apply: {title}', error(y, y64.detach(), scale), rounding)
        if y.stride() != x.stride() or y.dtype != x.dtype:
            yield Check(f'apply, format of the result: {title}', float('nan'), rounding)
        if k == 3:
            ended = kernels.forward(x, weight, bias, mean, invstd, dilation, g, True)
            expected = (y64.detach() + g).relu()
            yield Check(
                f'apply + residual + ReLU: {title}',
                error(ended, expected, expected.max()),
                rounding,
            )

        sums = kernels.backward_reduce(g, x, weight, mean, invstd, dilation)
        expected = (weight64.grad, bias64.grad, normalized.grad.sum((0, 2, 3)))
        # Sums of changing sign: float32 is as good as the size of their terms lets it be.
        size = g.double().abs().sum((0, 2, 3)).max()
        for part, actual, wanted in zip(('weight', 'bias', 'sum'), sums, expected, strict=True):
            yield Check(f'backward_reduce, {part}: {title}', error(actual, wanted, size), 2e-6)
        mean_dy = mean_dy_xmu = None
        if not frozen:
            mean_dy = sums[2] / count
            mean_dy_xmu = (weight * sums[0]).sum((1, 2, 3)) / count
        dx = kernels.backward_input(g, x, weight, mean, invstd, mean_dy, mean_dy_xmu, dilation)
        scale = (invstd * weight.abs().sum((1, 2, 3))).max() * g.abs().max().float()
        yield Check(f'backward_input: {title}', error(dx, x64.grad, scale), rounding)


def check(kernels, sizes: list[int], quick: bool) -> list[Check]:
    """Returns every comparison at these kernel sizes; `quick` leaves out some shapes.

    Block sizes are the fixed ones: to compile all of them for all types takes far longer. And
    torch fills what it allocates with NaN, so that nothing can pass for computed by chance.
    """
    shapes = [(2, 24, 25, 42)] if quick else [(2, 24, 25, 42), (3, 70, 50, 67), (2, 5, 3, 2)]
    found = []
    torch.use_deterministic_algorithms(True)
    for layout, dtype, k, dilation in product(FORMATS, DTYPES.values(), sizes, (1, 2)):
        for shape in shapes:
            found += check_case(kernels, shape, k, dilation, layout, dtype)
    torch.use_deterministic_algorithms(False)
    x = torch.randn(4, 64, 56, 56, device='cuda')
    for offset, layout in product((1e2, 1e4), FORMATS):
        far = (x + offset).contiguous(memory_format=FORMATS[layout])
        var = far.double().var((0, 2, 3), correction=0)
        found.append(
            Check(
                f'statistics, variance around a mean of {offset:g}: {layout}',
                error(kernels.statistics(far)[1], var, var),
                1e-5,
            )
        )
    return found


def check_repeatability(kernels, times: int = 5) -> list[Check]:
    """Runs the passes several times on equal inputs: results must be equal to the bit."""
    found = []
    for layout, dtype in product(FORMATS, DTYPES.values()):
        x, g, weight, bias = draw((2, 256, 50, 84), 5, FORMATS[layout], dtype)

        def step(x=x, g=g, weight=weight, bias=bias) -> tuple[Tensor, ...]:
            count = x.numel() // x.shape[1]
            mean, var = kernels.statistics(x)
            invstd = (var + EPS).rsqrt()
            sums = kernels.backward_reduce(g, x, weight, mean, invstd, 1)
            mean_dy_xmu = (weight * sums[0]).sum((1, 2, 3)) / count
            dx = kernels.backward_input(g, x, weight, mean, invstd, sums[2] / count, mean_dy_xmu, 1)
            return mean, var, kernels.forward(x, weight, bias, mean, invstd, 1), *sums, dx

        first = step()
        different = sum(
            not torch.equal(a, b) for _ in range(times) for a, b in zip(first, step(), strict=True)
        )
        found.append(Check(f'bitwise repeatability: {layout} {dtype}', float(different), 0.0))
    return found


class _FusedNorm(torch.autograd.Function):
    """Forward and backward pass in training, as the kernels' user calls them."""

    @staticmethod
    def forward(ctx, x, weight, bias, kernels):
        mean, var = kernels.statistics(x)
        invstd = (var + EPS).rsqrt()
        ctx.save_for_backward(x, weight, mean, invstd)
        ctx.kernels = kernels
        return kernels.forward(x, weight, bias, mean, invstd, 1)

    @staticmethod
    def backward(ctx, g):
        x, weight, mean, invstd = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        grad_weight, grad_bias, total = ctx.kernels.backward_reduce(g, x, weight, mean, invstd, 1)
        mean_dy_xmu = (weight * grad_weight).sum((1, 2, 3)) / count
        dx = ctx.kernels.backward_input(g, x, weight, mean, invstd, total / count, mean_dy_xmu, 1)
        return dx, grad_weight, grad_bias, None


def two_lines(channels: int, k: int) -> nn.Module:
    """Returns the paper's version: a norm without scale and shift, and a depthwise convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(channels, affine=False),
        nn.Conv2d(channels, channels, k, padding=k // 2, groups=channels),
    )


def timer(run: Callable[[], object]) -> Callable[[], float]:
    """Returns a function that runs `run` once and says how long the GPU took, in milliseconds."""

    def measure() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The GPU is kept busy until everything is queued: else a small map's time is that of the
        # Python that launches its kernels.
        torch.cuda._sleep(4_000_000)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    return measure


def step_of(function: Callable, x: Tensor, g: Tensor, parameters: list[Tensor]) -> Callable:
    """Returns a function that does the forward and the backward pass once."""
    x = x.detach().requires_grad_()

    def run() -> None:
        torch.autograd.grad(function(x), [x, *parameters], g)

    return run


def time_site(
    kernels, site: tuple, k: int, layout: str, dtype: torch.dtype, rounds: int, compiled: bool
) -> dict:
    """Returns milliseconds of each way, by its name, and the medians of ratios to batch norm.

    All of them run in every round, so that what slows the GPU down for a while slows them all.
    """
    shape = (2, *site)
    x, g, weight, bias = draw(shape, k, FORMATS[layout], dtype)
    channels = site[0]
    weight, bias = weight.requires_grad_(), bias.requires_grad_()
    batch_norm = nn.BatchNorm2d(channels).cuda()
    paper = two_lines(channels, k).cuda().to(memory_format=FORMATS[layout])

    def eager(x):
        with torch.autocast('cuda', dtype, enabled=dtype != torch.float32):
            return paper(x)

    runs = {
        'bn': step_of(batch_norm, x, g, list(batch_norm.parameters())),
        'kernels': step_of(
            lambda x: _FusedNorm.apply(x, weight, bias, kernels), x, g, [weight, bias]
        ),
        'two lines': step_of(eager, x, g, list(paper.parameters())),
    }
    if compiled:
        torch._dynamo.reset()
        runs['two lines, compiled'] = step_of(
            torch.compile(eager, dynamic=False), x, g, list(paper.parameters())
        )
    target = torch.empty_like(x)
    runs['copy'] = lambda: target.copy_(x)
    failed = []
    for name, run in list(runs.items()):
        try:
            for _ in range(3):
                run()
        except Exception as problem:  # the compiler's many kinds; the other rows are still wanted
            if name != 'two lines, compiled':
                raise
            failed.append(f'{type(problem).__name__}: {str(problem).splitlines()[0]}')
            del runs[name]
    torch.cuda.synchronize()
    times = {name: [] for name in runs}
    measures = {name: timer(run) for name, run in runs.items()}
    for _ in range(rounds):
        for name, measure in measures.items():
            times[name].append(measure())
    # Of the map: forward 2 reads and 1 write, backward 4 reads and 1 write; a copy is 2 of them.
    times['limit'] = [4 * value for value in times.pop('copy')]
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, times['bn'], strict=True))
        for name, values in times.items()
    }
    milliseconds = {name: statistics.median(values) for name, values in times.items()}
    return dict(
        site='x'.join(map(str, shape)),
        k=k,
        layout=layout,
        dtype=str(dtype).removeprefix('torch.'),
        milliseconds=milliseconds,
        ratios=ratios,
        failed=failed,
    )


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write all numbers there')
    parser.add_argument(
        '--k', type=int, nargs='+', choices=(1, 3, 5, 7), help='kernel sizes (all; quick: 5)'
    )
    parser.add_argument(
        '--quick', action='store_true', help='fewer shapes, types and rounds, no torch.compile'
    )
    parser.add_argument('--only-check', action='store_true', help='no times')
    return parser.parse_args()


def print_times(row: dict) -> None:
    """Prints one line of the table."""
    cells = [f'{row["site"]:>15} {row["layout"]:>13} {row["dtype"]:>8} {row["k"]:>2}']
    for name in ('bn', 'limit', 'kernels', 'two lines', 'two lines, compiled'):
        if name in row['ratios']:
            cells.append(f'{row["milliseconds"][name]:8.3f} ({row["ratios"][name]:5.2f})')
        else:
            cells.append(f'{"-":>16}')
    print(' '.join(cells), *row['failed'], flush=True)


def main() -> int:
    """Returns the exit status."""
    arguments = parse_arguments()
    if not torch.cuda.is_available():
        print('No GPU that torch can use was found: nothing was run.', file=sys.stderr)
        return 2
    if importlib.util.find_spec('triton') is None:
        print('Triton is not installed: nothing was run.', file=sys.stderr)
        return 2
    kernels = load_kernels()
    torch.manual_seed(0)
    gpu = torch.cuda.get_device_name()
    print(f'{gpu}, torch {torch.__version__}, Triton {kernels.triton.__version__}')
    sizes = arguments.k or ([5] if arguments.quick else [1, 3, 5, 7])
    checks = check(kernels, sizes, arguments.quick) + check_repeatability(kernels)
    failures = [found for found in checks if not found.passed]
    for found in failures[:40]:
        print(f'FAILED {found.case}: error {found.error:.2e}, allowed {found.allowed:.0e}')
    worst = max((c for c in checks if c.allowed), key=lambda c: c.error / c.allowed)
    print(
        f'{len(checks) - len(failures)} checks passed, {len(failures)} failed; closest to what is '
        f'allowed: {worst.error:.2e} of {worst.allowed:.0e}, {worst.case}'
    )
    report = dict(gpu=gpu, checks=[asdict(c) for c in checks], failed=len(failures), times=[])
    if not arguments.only_check:
        print(
            'Forward + backward in ms (times batch norm): '
            'batch norm, copy limit, kernels, two lines, two lines compiled'
        )
        dtypes = ('float32', 'float16') if arguments.quick else DTYPES
        rounds = 15 if arguments.quick else 41
        for layout, dtype, k, site in product(FORMATS, dtypes, sizes, SITES):
            row = time_site(kernels, site, k, layout, DTYPES[dtype], rounds, not arguments.quick)
            report['times'].append(row)
            print_times(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + '\n')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
