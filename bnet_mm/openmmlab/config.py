"""The walk over the entries of a config, and what their types stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.registry import Registry


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


def class_of(cfg: dict, registry: Registry, scope: str | None = None) -> Any:
    """Returns what the `type` of a config stands for, or None.

    Args:
        cfg: with a name, of any scope, or a class, as configs in Python have it.
        registry: that has the name.
        scope: in which it is looked for; by default that of `cfg`, or the registry's.
    """
    kind = cfg.get('type')
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(scope or cfg.get('_scope_')) as scoped:
            kind = scoped.get(kind)
    return kind


def pretrained_sources(model_cfg: object) -> Iterator[tuple[str, str]]:
    """Yields each entry of a model's config that names pretrained weights, and the file or URL."""
    for where, node in walk(model_cfg, 'model'):
        if not isinstance(node, dict):
            continue
        for key in ('pretrained', 'checkpoint'):
            source = node.get(key)
            if isinstance(source, str) and (key == 'pretrained' or is_pretrained(node)):
                yield f'{where}.{key}', source


def is_pretrained(init_cfg: dict) -> bool:
    """Tells whether an `init_cfg` loads a file; its type may be a class."""
    kind = init_cfg.get('type')
    return getattr(kind, '__name__', kind) in ('Pretrained', 'PretrainedInit')
