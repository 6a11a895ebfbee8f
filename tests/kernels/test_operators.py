"""What compilers are told of the operators, against what the operators do."""

from __future__ import annotations

import copy

import pytest
import torch
from abilities import needs_custom_operators

from bnet_mm.kernels import use
from bnet_mm.layers import BNET

LAYOUTS = {
    'contiguous': lambda n, c, h, w: torch.randn(n, c, h, w),
    'channels_last': lambda *size: torch.randn(*size).to(memory_format=torch.channels_last),
    'transposed': lambda n, c, h, w: torch.randn(n, c, w, h).transpose(2, 3),
    'reversed': lambda n, c, h, w: torch.randn(w, h, c, n).permute(3, 2, 1, 0),
    'channels_first': lambda n, c, h, w: torch.randn(c, n, h, w).transpose(0, 1),
    'sliced': lambda n, c, h, w: torch.randn(n, c, h, 2 * w)[..., ::2],
}


@needs_custom_operators
@pytest.mark.parametrize('backend', ['auto', 'eager'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_shapes_strides_and_memory_are_as_told(layout, backend):
    x = LAYOUTS[layout](2, 6, 5, 7)
    weight, bias = torch.randn(6, 1, 3, 3), torch.randn(6)
    mean, invstd = torch.randn(6), torch.rand(6)
    grad = LAYOUTS['transposed'](2, 6, 5, 7)
    with use(backend):
        for operator, args in (
            ('training', (x, weight, bias, 1e-5, 1)),
            ('frozen', (x, weight, bias, mean, invstd, 1)),
            ('backward', (grad, x, weight, mean, invstd, 1, False)),
        ):
            torch.library.opcheck(
                getattr(torch.ops.bnet_mm, operator).default,
                args,
                test_utils=('test_schema', 'test_faketensor'),
            )


@needs_custom_operators
@pytest.mark.parametrize('layout', LAYOUTS)
def test_compiled_networks_take_every_layout(layout):
    """With other operators before and after, whose code goes by the strides."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = torch.nn.Sequential(torch.nn.ReLU(), BNET(6, k=3), torch.nn.ReLU())
    torch.nn.init.normal_(model[1].dw.weight)
    compiled = torch.compile(copy.deepcopy(model), backend='aot_eager', fullgraph=True)
    x = LAYOUTS[layout](2, 6, 5, 7).requires_grad_()
    g = torch.randn(2, 6, 5, 7)
    results = []
    for net in (model, compiled):
        y = net(x)
        results.append([y, *torch.autograd.grad(y, [x, *net.parameters()], g)])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
