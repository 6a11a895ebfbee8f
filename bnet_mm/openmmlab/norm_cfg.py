"""A `norm_cfg` of this package's norms, parsed and checked once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from bnet_mm.errors import InputError
from bnet_mm.layers import BNET, GNET, INET, SNET, BNControl, SyncBNET
from bnet_mm.layers.depthwise import check_kernel
from bnet_mm.models.norms import enhanced
from bnet_mm.models.placement import check_positions, place
from bnet_mm.openmmlab.config import walk
from bnet_mm.text import without_prefix

# This package's norms, and the norm that each is built on.
PLAIN = {
    BNET: dict(type='BN'),
    SyncBNET: dict(type='SyncBN'),
    GNET: dict(type='GN'),
    SNET: dict(type='SN'),
    INET: dict(type='IN', affine=True),
    BNControl: dict(type='BN'),
}
PLACING = ('k', 'dilation', 'positions')
# Of group norms, switchable ones and others, which stay there when a base's type is replaced.
LEFTOVERS = {'num_groups', 'using_moving_average', 'using_bn', 'stats_mode', 'affine'}
# Entries that mmengine and mmcv take out before the layer is built.
NOT_OF_LAYER = {'type', 'requires_grad', '_scope_', '_delete_'}


@dataclass(frozen=True)
class NormSpec:
    """What a `norm_cfg` of this package says.

    Attributes:
        layer: `BNET`, `SyncBNET`, `GNET`, `SNET`, `INET` or `BNControl`.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        positions: letters of 'ABC', 'all', or None for the paper's position.
        plain: the `norm_cfg` of the norm that it is built on, with all other entries.
        dropped: entries of another norm, which a config's base had there.

    Examples:
        >>> spec = NormSpec.parse(dict(type='BNET', k=5, eps=1e-3))
        >>> str(spec), spec.plain
        ('BNET-5', {'type': 'BN', 'eps': 0.001})
        >>> NormSpec.parse(dict(type='BN')) is None
        True
    """

    layer: type[nn.Module]
    k: int
    dilation: int
    positions: str | None
    plain: dict
    dropped: tuple[str, ...] = ()

    @classmethod
    def parse(cls, norm_cfg: object, where: str = 'norm_cfg') -> NormSpec | None:
        """Returns the spec of a `norm_cfg`, or None if it is of another norm, or no norm at all.

        Args:
            norm_cfg: a dict whose `type` is a class, or a name with any scope.
            where: what to call it in an error.

        Raises:
            InputError: an entry is unknown, or its value cannot be used.
        """
        kind = norm_cfg.get('type') if isinstance(norm_cfg, dict) else None
        if isinstance(kind, str):
            kind = kind.rpartition('.')[2]
        layer = next((norm for norm in PLAIN if kind in (norm, norm.__name__)), None)
        if layer is None:
            return None
        entries = [
            entry
            for entry in inspect.signature(layer).parameters
            if entry not in ('num_features', 'device', 'dtype', '_scope_')
        ]
        left = sorted(set(norm_cfg) & LEFTOVERS - set(entries))
        unknown = sorted(set(norm_cfg) - NOT_OF_LAYER - set(entries) - LEFTOVERS)
        if unknown:
            raise InputError(
                f'{where}: {layer.__name__} takes no {unknown[0]!r}; its entries are '
                f'{", ".join(entries)} and requires_grad'
            )
        try:
            k, dilation = check_kernel(norm_cfg.get('k', 3), norm_cfg.get('dilation', 1))
            positions = check_positions(norm_cfg.get('positions'))
        except InputError as error:
            raise InputError(f'{where}: {error}') from error
        kept = {k: v for k, v in norm_cfg.items() if k not in PLACING and k not in left}
        if layer is GNET:  # mmcv insists on it for GN
            kept.setdefault('num_groups', inspect.signature(GNET).parameters['num_groups'].default)
        return cls(layer, k, dilation, positions, {**kept, **PLAIN[layer]}, tuple(left))

    def __str__(self) -> str:
        """The norm as the paper writes it: 'BNET-3'."""
        name = f'{without_prefix(self.layer.__name__, "Sync")}-{self.k}'
        return name if self.dilation == 1 else f'{name} dilation {self.dilation}'

    def place(self, model: nn.Module) -> list[str]:
        """Puts the norm into a model that was built with `plain`, and returns what to say of it.

        Raises:
            InputError: see `bnet_mm.enhance`.
        """

        def replaced_by(norm: nn.Module) -> nn.Module:
            if self.layer is BNControl:
                return BNControl.from_norm(norm, self.k, self.dilation)
            return enhanced(norm, self.k, self.dilation)

        return place(model, self.positions, replaced_by, again=True)

    def remarks(self) -> list[str]:
        """Returns what should be said of the entries."""
        if not self.dropped:
            return []
        entries = ', '.join(self.dropped)
        return [f'{self.layer.__name__} takes no {entries}, left from another norm: dropped']


def norm_specs(node: object, where: str = '') -> Iterator[tuple[str, dict, NormSpec]]:
    """Yields path, dict and spec of every `norm_cfg` of this package in a config.

    Raises:
        InputError: one cannot be built; the message says where it stands.
    """
    for path, value in walk(node, where):
        spec = NormSpec.parse(value, path)
        if spec is not None:
            yield path, value, spec


def check_norms(model_cfg: object) -> None:
    """Raises InputError for a `norm_cfg` in a model's config that this package cannot build."""
    for _ in norm_specs(model_cfg, 'model'):
        pass
