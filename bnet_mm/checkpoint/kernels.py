"""Changes the kernel size of every BNET of a checkpoint without changing what it computes."""

import re

import torch
from torch import Tensor
from torch.nn.functional import pad

from bnet_mm.errors import InputError
from bnet_mm.layers.depthwise import check_kernel, dirac_kernel

SITE = re.compile(r'layer\d+\.\d+\.bn\d(?=\.)')


def kernel_sizes(state: dict[str, Tensor]) -> dict[str, int]:
    """Returns the kernel size of each BNET, by the common name of its norm (`layer1.0.bn3`)."""
    return {
        name.removesuffix('.dw.weight'): value.shape[-1]
        for name, value in state.items()
        if name.endswith('.dw.weight') and value.ndim == 4
    }


def last_norms(state: dict[str, Tensor]) -> list[str]:
    """Returns the norm at position C of each block (paper, table 10), in order."""
    last = {}
    for name in state:
        site = SITE.match(name)
        if site:
            block = site[0].rpartition('.')[0]
            last[block] = max(last.get(block, ''), site[0])
    return list(last.values())


def energy_outside_centre(kernel: Tensor) -> float:
    """Returns which share of the sum of squares of `(C, 1, k, k)` is outside the centre taps.

    0 is plain batch normalization, 1 - 1/k^2 a box filter; NaN where a tap is.
    """
    squares, k = kernel.detach().double().square(), kernel.shape[-1]
    total, centre = squares.sum(), squares[:, :, k // 2, k // 2].sum()
    return ((total - centre) / total).item() if total else 0.0


def set_kernel_size(state: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """Returns the state with k x k kernels at its BNETs, or at position C where it has none.

    A plain norm's scale becomes the centre tap, a smaller kernel gets a border of zeros, and a
    larger one loses its border if that is zero. With `k=1` BNET becomes plain batch normalization.

    Args:
        state: a backbone's tensors under their common names.
        k: kernel size, odd.

    Raises:
        InputError: a kernel is larger and its border is not zero.
    """
    k, _ = check_kernel(k)
    sites = kernel_sizes(state)
    result = dict(state)
    for site in sites or last_norms(state):
        if site in sites:
            kernel, bias = result.pop(f'{site}.dw.weight'), result.pop(f'{site}.dw.bias')
        elif k == 1:
            continue
        else:
            scale = result.pop(f'{site}.weight', None)
            if scale is None:
                scale = torch.ones_like(result[f'{site}.running_mean'])
            bias = result.pop(f'{site}.bias', torch.zeros_like(scale))
            kernel = dirac_kernel(scale, 1)
        kernel = _resized(kernel, k, site)
        norm = '' if k == 1 else 'norm.'
        for name in ('running_mean', 'running_var', 'num_batches_tracked'):
            for old in (f'{site}.{name}', f'{site}.norm.{name}'):
                if old in result:
                    result[f'{site}.{norm}{name}'] = result.pop(old)
        scale_name, bias_name = ('weight', 'bias') if k == 1 else ('dw.weight', 'dw.bias')
        result[f'{site}.{scale_name}'] = kernel.flatten() if k == 1 else kernel
        result[f'{site}.{bias_name}'] = bias
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
