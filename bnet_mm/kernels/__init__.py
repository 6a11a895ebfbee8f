"""The layer's arithmetic on tensors, without modules.

`backend` says what a back end computes and chooses one for a feature map: `eager` (torch's own
operators, everywhere), `cpu` (C++, `csrc/`) or `triton` (GPUs). `operators` gives the passes to
autograd and to `torch.compile`, `statistics` keeps running statistics and joins those of several
processes.
"""

from __future__ import annotations

from bnet_mm.kernels.backend import use

__all__ = ['use']
