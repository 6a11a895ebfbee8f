"""The layers that are compared: plain batch normalization, the paper's two lines, BNET."""

import copy

from torch import Tensor, nn

from bnet_mm.layers import BNET, EnhancedNorm

BN, TWO_LINES, OURS = 'BN', 'two lines', 'BNET'


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
    """Returns one of the three."""
    if peer == BN:
        return nn.BatchNorm2d(num_features)
    return (TwoLines if peer == TWO_LINES else BNET)(num_features, k=k)


def model_with(peer: str, model: nn.Module) -> nn.Module:
    """Returns a copy of a model with BNET that has `peer` in the place of each, at its start."""
    model = copy.deepcopy(model)
    if peer == OURS:
        return model
    for name, norm in list(model.named_modules()):
        if not isinstance(norm, EnhancedNorm):
            continue
        parent, _, child = name.rpartition('.')
        new = layer(peer, norm.num_features, norm.k).train(norm.norm.training)
        new.requires_grad_(norm.dw.weight.requires_grad)
        if peer == TWO_LINES:
            new.bn.load_state_dict(norm.norm.state_dict())
            new.bnconv.load_state_dict(norm.dw.state_dict())
        else:
            new.load_state_dict(norm.norm.state_dict(), strict=False)
        setattr(model.get_submodule(parent), child, new)
    return model
