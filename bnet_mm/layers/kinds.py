"""What counts as a norm, and the walk over all norms of a model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from bnet_mm.layers.control import BNControl
from bnet_mm.layers.enhanced import EnhancedNorm
from bnet_mm.layers.switchable import SwitchNorm2d

PLAIN_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    SwitchNorm2d,
)
NORMS = (*PLAIN_NORMS, EnhancedNorm, BNControl)


def is_norm(module: nn.Module) -> bool:
    """Tells whether a module stands in the place of a norm, plain or of this package."""
    return isinstance(module, NORMS)


def named_norms(
    model: nn.Module, kinds: type | tuple[type, ...] = NORMS, repeated: bool = False
) -> Iterator[tuple[str, nn.Module]]:
    """Yields name and module of every norm of a model, in the order of `named_modules`.

    A norm inside another one, as the batch norm in a BNET or in a switchable norm, is a part of
    that and not yielded.

    Args:
        model: any model.
        kinds: the classes to yield, `EnhancedNorm` for BNET and its family alone.
        repeated: whether a norm that is used in several places is yielded for each of them.

    Examples:
        >>> from bnet_mm import BNET
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), BNET(4, k=3), nn.BatchNorm2d(4))
        >>> [name for name, _ in named_norms(model)]
        ['1', '2']
        >>> [name for name, _ in named_norms(model, EnhancedNorm)]
        ['1']
    """
    inside: set[nn.Module] = set()
    for name, module in model.named_modules(remove_duplicate=not repeated):
        if not isinstance(module, NORMS) or module in inside:
            continue
        inside.update(part for part in module.modules() if part is not module)
        if isinstance(module, kinds):
            yield name, module
