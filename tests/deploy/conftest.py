"""Models whose every number has moved: at the statistics of the start, folding does nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bnet_mm.layers import EnhancedNorm


@pytest.fixture
def trained():
    """Moves statistics, scales, shifts, kernels and biases of a model, and returns it."""

    def move(model: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)

        def uniform(tensor, low, high):
            if tensor is not None:
                tensor.data.uniform_(low, high, generator=generator)

        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2.0)
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.5, 0.5)
            elif isinstance(module, EnhancedNorm):
                uniform(module.dw.weight, -0.4, 0.4)
                uniform(module.dw.bias, -0.5, 0.5)
        model.eval()  # which returns nothing in mmdet's backbones
        return model

    return move


@pytest.fixture
def equal():
    """Compares two models on random maps, in float64: only weights may have been rounded."""

    def compare(model: nn.Module, fused: nn.Module, *shape: int, tolerance: float = 1e-5) -> None:
        from copy import deepcopy

        x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        with torch.no_grad():
            expected, got = deepcopy(model).double()(x), deepcopy(fused).double()(x)
        expected, got = ([t] if isinstance(t, torch.Tensor) else list(t) for t in (expected, got))
        assert len(expected) == len(got)
        for a, b in zip(expected, got):
            assert a.shape == b.shape
            assert (a - b).abs().max() <= tolerance * a.abs().max()

    return compare
