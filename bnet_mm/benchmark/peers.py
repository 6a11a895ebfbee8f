"""What is compared: plain batch normalization, the reference implementation (two lines), BNET."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from bnet_mm.layers import BNET, EnhancedNorm, named_norms

BN, TWO_LINES, OURS = 'BN', 'two lines', 'BNET'
COMPILED = 'two lines compiled'


class TwoLines(nn.Module):
    """Algorithm 1 of the paper as it is printed: a batch norm, then a depthwise convolution."""

    def __init__(self, num_features: int, k: int, dilation: int = 1, eps: float = 1e-5):
        super().__init__()
        self.bn = nn.BatchNorm2d(num_features, eps=eps, affine=False)
        self.bnconv = nn.Conv2d(
            *(num_features, num_features, k),
            padding=dilation * (k // 2),
            dilation=dilation,
            groups=num_features,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.bnconv(self.bn(x))


def layer(peer: str, num_features: int, k: int) -> nn.Module:
    """Returns a layer of one of the peers."""
    if peer == BN:
        return nn.BatchNorm2d(num_features)
    return (TwoLines if peer == TWO_LINES else BNET)(num_features, k=k)


def model_with(peer: str, model: nn.Module) -> nn.Module:
    """Returns a copy of a model with BNET that has `peer` in the place of each, at its start."""
    model = copy.deepcopy(model)
    if peer == OURS:
        return model
    for name, norm in list(named_norms(model, EnhancedNorm)):
        new = layer(peer, norm.num_features, norm.k).train(norm.norm.training)
        new.requires_grad_(norm.dw.weight.requires_grad)
        if peer == TWO_LINES:
            new.bn.load_state_dict(norm.norm.state_dict())
            new.bnconv.load_state_dict(norm.dw.state_dict())
        else:
            new.load_state_dict(norm.norm.state_dict(), strict=False)
        model.set_submodule(name, new)
    return model
