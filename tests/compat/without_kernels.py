"""What the pure wheel gives: the layer, by torch's own operators, which says so."""

import torch

import bnet_mm
from bnet_mm.kernels import cpu
from bnet_mm.layers import BNET

x = torch.randn(2, 4, 8, 8, requires_grad=True)
layer = BNET(4, k=3)
torch.testing.assert_close(layer(x), torch.nn.BatchNorm2d(4)(x))
layer(x).sum().backward()
reason = cpu.unsupported(x, 3, 1)
assert reason == 'the CPU kernels were not compiled when bnet_mm was installed', reason
print(f'pure wheel, torch {torch.__version__}: {bnet_mm.__file__} computes; {reason}')
