"""The walk over the entries of a config."""

from __future__ import annotations

from collections.abc import Iterator


def walk(node: object, where: str = '') -> Iterator[tuple[str, object]]:
    """Yields every entry of a config, or of a part of one, with the path to it; parents first.

    Args:
        node: dicts, lists and tuples, nested, and what they hold.
        where: the path to `node`.

    Examples:
        >>> [path for path, _ in walk({'model': {'depth': 50, 'stages': [1, 2]}})]
        ['', 'model', 'model.depth', 'model.stages', 'model.stages.0', 'model.stages.1']
    """
    yield where, node
    children: Iterator | enumerate | tuple = ()
    if isinstance(node, dict):
        children = iter(node.items())
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    for key, value in children:
        yield from walk(value, f'{where}.{key}' if where else str(key))


def pretrained_sources(model_cfg: object) -> Iterator[tuple[str, str]]:
    """Yields each entry of a model's config that names pretrained weights, and the file or URL."""
    for where, node in walk(model_cfg, 'model'):
        if not isinstance(node, dict):
            continue
        for key in ('pretrained', 'checkpoint'):
            source = node.get(key)
            if isinstance(source, str) and (
                key == 'pretrained' or node.get('type') == 'Pretrained'
            ):
                yield f'{where}.{key}', source
