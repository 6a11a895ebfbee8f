"""What an arm puts in the place of the last norm of each residual branch."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bnet_mm import BNET, enhance
from bnet_mm.layers import BNControl
from bnet_mm.models.placement import place


class DepthwiseNorm(nn.Sequential):
    """A depthwise convolution, then batch norm, in the place of a norm."""

    def __init__(self, norm: nn.BatchNorm2d, k: int):
        channels = norm.num_features
        conv = nn.Conv2d(channels, channels, k, padding=k // 2, groups=channels, bias=False)
        super().__init__(conv, norm)


class ReplicatedBorder(nn.Module):
    """BNET whose normalized map goes on with its border where BNET's goes on with zeros.

    Shape:
        input and output `(N, C, H, W)`.
    """

    def __init__(self, layer: BNET):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        k = layer.dw.weight.shape[-1]
        x = F.pad(layer.norm(x), (k // 2,) * 4, mode='replicate')
        return F.conv2d(x, layer.dw.weight, layer.dw.bias, groups=x.shape[1])


def parameter_groups(net: nn.Module, arm: dict[str, Any], decay: float) -> list[dict[str, Any]]:
    """Returns an optimizer's groups: BNET's kernels, and everything else.

    Args:
        net: of the arm.
        arm: `kernel_lr` and `kernel_decay` multiply the kernels' learning rate and weight decay.
        decay: weight decay of everything else.

    Returns:
        groups with `weight_decay` and `factor`, by which their learning rate is multiplied.
    """
    kernels = {id(m.dw.weight) for m in net.modules() if isinstance(m, BNET)}
    parts = {True: [], False: []}
    for parameter in net.parameters():
        parts[id(parameter) in kernels].append(parameter)
    groups = [dict(params=parts[False], weight_decay=decay, factor=1.0)]
    if parts[True]:
        of_kernels = decay * arm.get('kernel_decay', 1.0)
        groups.append(
            dict(params=parts[True], weight_decay=of_kernels, factor=arm.get('kernel_lr', 1.0))
        )
    return groups


def apply_arm(net: nn.Module, arm: dict[str, Any]) -> nn.Module:
    """Changes a built network of batch norms into that of an arm, in place, and returns it.

    Args:
        net: any network with residual blocks.
        arm: `norm`, `k`, `kernel` and `padding` of a plan's arm.
    """
    k = arm['k']
    if arm['norm'] == 'bnet':
        enhance(net, k=k)
    elif arm['norm'] == 'control':
        place(net, None, lambda norm: BNControl.from_norm(norm, k))
    elif arm['norm'] == 'depthwise':
        place(net, None, lambda norm: DepthwiseNorm(norm, k))
    layers = {name: m for name, m in net.named_modules() if isinstance(m, BNET)}
    for name, layer in layers.items():
        if arm['kernel'] == 'zero':
            nn.init.zeros_(layer.dw.weight)
        elif arm['kernel'] == 'kaiming':
            nn.init.kaiming_normal_(layer.dw.weight, mode='fan_out', nonlinearity='relu')
        if arm['padding'] == 'replicate':
            parent, _, child = name.rpartition('.')
            setattr(net.get_submodule(parent), child, ReplicatedBorder(layer))
    return net
