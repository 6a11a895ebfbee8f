"""What a config says of norms and of weights."""

import inspect
from collections.abc import Iterator

from bnet_mm.errors import InputError
from bnet_mm.layers.depthwise import check_kernel
from bnet_mm.models.placement import check_positions
from bnet_mm.openmmlab.backbones.placement_aware import bnet_class

# Of a norm_cfg: what is not an argument of the layer.
NORM_KEYS = {'type', 'requires_grad', '_scope_', '_delete_'}


def check_norms(node: object, where: str = 'model') -> None:
    """Raises InputError for a BNET norm_cfg anywhere below `node` that cannot be built."""
    if isinstance(node, dict):
        norm = bnet_class(node.get('type'))
        if norm:
            entries = list(inspect.signature(norm).parameters)
            entries = [e for e in entries if e not in ('num_features', 'device', 'dtype')]
            unknown = sorted(set(node) - NORM_KEYS - set(entries))
            if unknown:
                entries.remove('_scope_')
                raise InputError(
                    f'{where}: {norm.__name__} takes no {unknown[0]!r}; its entries are '
                    f'{", ".join(entries)} and requires_grad'
                )
            try:
                check_kernel(node.get('k', 3), node.get('dilation', 1))
                check_positions(node.get('positions'))
            except InputError as error:
                raise InputError(f'{where}: {error}') from error
        for key, value in node.items():
            check_norms(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            check_norms(value, f'{where}.{i}')


def pretrained_sources(node: object, where: str = 'model') -> Iterator[tuple[str, str]]:
    """Yields each entry of a model's config that names pretrained weights, and the file or URL."""
    if isinstance(node, dict):
        for key in ('pretrained', 'checkpoint'):
            source = node.get(key)
            if isinstance(source, str) and (
                key == 'pretrained' or node.get('type') == 'Pretrained'
            ):
                yield f'{where}.{key}', source
        for key, value in node.items():
            yield from pretrained_sources(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from pretrained_sources(value, f'{where}.{i}')
