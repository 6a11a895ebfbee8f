"""What the layer keeps for the backward pass, in bytes."""

from __future__ import annotations

import pytest
import torch
from abilities import needs_half_batch_norm
from torch import nn

from bnet_mm.kernels.versions import storage_of
from bnet_mm.layers import BNET


def kept(layer: nn.Module, x: torch.Tensor) -> dict[int, int]:
    """Returns the size of each storage that autograd keeps, by its address."""
    sizes = {}

    def pack(tensor):
        sizes[storage_of(tensor).data_ptr()] = storage_of(tensor).nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return sizes


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    'dtype',
    [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=needs_half_batch_norm)],
    ids=str,
)
@pytest.mark.parametrize('training', [True, False], ids=['batch', 'frozen'])
@pytest.mark.parametrize('k', [1, 3, 5, 7])
def test_as_much_as_batch_norm_and_the_kernel(k, training, dtype, memory_format):
    c = 16
    x = torch.randn(2, c, 12, 10).to(dtype).contiguous(memory_format=memory_format)
    x.requires_grad_()
    bnet, bn = BNET(c, k=k).train(training), nn.BatchNorm2d(c).train(training)
    ours, theirs = kept(bnet, x), kept(bn, x)
    kernel = bnet.dw.weight.numel() * 4
    assert sum(ours.values()) <= sum(theirs.values()) + kernel
    # Nothing of a map's size but the input itself, and the statistics.
    assert ours.pop(x.data_ptr()) == x.numel() * x.element_size()
    assert ours.pop(bnet.dw.weight.data_ptr()) == kernel
    assert sorted(ours.values()) == [4 * c, 4 * c]
