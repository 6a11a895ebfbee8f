"""The model card of a published checkpoint: what it is, for people and for the Hub's search."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from bnet_mm.checkpoint.contents import Contents
from bnet_mm.checkpoint.inspection import inspect_checkpoint

TAGS = ('bnet', 'batch-normalization', 'pytorch')
PAPER = 'https://arxiv.org/abs/2011.14150'
# Longer texts of `meta`, a whole config for example, are in the file, and not in the card.
LONGEST = 200
USE = """\
## Use

With the Python package bnet_mm, `NAME` being a folder of these files or their name on the Hub:

```python
from bnet_mm.checkpoint import from_pretrained

state = from_pretrained('NAME')         # names and tensors
model = from_pretrained('NAME', model)  # or into a model with batch norm or BNET
```
"""


def card_text(
    contents: Contents,
    kernels: Mapping[str, tuple[int, int | None]],
    title: str,
    license: str | None = None,
    tags: Iterable[str] = (),
    metrics: Mapping[str, float] | None = None,
) -> str:
    """Returns the card of a checkpoint as Markdown with a head of YAML, as the Hub reads it.

    Args:
        contents: of the checkpoint; short entries of its `meta` are listed.
        kernels: size of each BNET, and its dilation or None where the file does not say it.
        title: of the card.
        license: identifier of the licence, 'apache-2.0' for example; None leaves it out.
        tags: beside this package's own.
        metrics: name -> value of what was measured.

    Example:
        >>> contents = Contents({}, {'epoch': 12}, {}, [])
        >>> card = card_text(contents, {'bn': (5, 1)}, 'mine', 'mit', metrics={'box AP': 40.1})
        >>> print(card.split('---')[1].strip())
        library_name: bnet_mm
        license: "mit"
        tags: ["bnet", "batch-normalization", "pytorch"]
        metrics: ["box AP"]
    """
    metrics = dict(metrics or {})
    # JSON is YAML, and no text of a stranger's file ends its quotes.
    head = ['library_name: bnet_mm']
    if license:
        head.append(f'license: {json.dumps(license)}')
    head.append(f'tags: {json.dumps(list(dict.fromkeys([*TAGS, *tags])))}')
    if metrics:
        head.append(f'metrics: {json.dumps(list(metrics))}')
    parts = [
        '\n'.join(['---', *head, '---']),
        f'# {_plain(title)}',
        f'A network with [BNET]({PAPER}), batch normalization whose last step is a depthwise '
        f'convolution.',
    ]
    if metrics:
        rows = ((name, f'{value:g}') for name, value in metrics.items())
        parts.append('## Metrics\n\nAs given by whoever published this.\n\n' + _table(rows))
    parts.append('## What it is\n\n' + _table(_facts(contents, kernels)))
    parts.append(USE.rstrip())
    return '\n\n'.join(parts) + '\n'


def _facts(
    contents: Contents, kernels: Mapping[str, tuple[int, int | None]]
) -> Iterator[tuple[str, str]]:
    found = inspect_checkpoint(contents)
    if found.layout:
        yield 'network', found.network
    yield 'tensors', f'{found.tensors}, of {found.values:,} values'
    yield 'types', ', '.join(f'{kind} ({count})' for kind, count in found.types.items())
    for (k, dilation), count in Counter(kernels.values()).items():
        spread = f', dilation {dilation}' if dilation not in (None, 1) else ''
        yield f'BNET, k = {k}{spread}', f'{count} norms'
    if found.plain_norms > 0:
        yield 'plain norms', str(found.plain_norms)
    yield from _short(contents.meta, '')


def _short(meta: Mapping, before: str) -> Iterator[tuple[str, str]]:
    """Yields the entries of `meta` that fit a row, and of lists how many there are."""
    for key, value in meta.items():
        name = f'{before}{key}'
        if isinstance(value, dict) and not before:
            yield from _short(value, f'{key}: ')
        elif isinstance(value, (list, tuple)):
            yield name, f'{len(value)} entries'
        elif isinstance(value, (str, int, float)):
            text = str(value).strip()
            if text and len(text) <= LONGEST and '\n' not in text:
                yield name, text


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = (f'| {_plain(name)} | {_plain(value)} |' for name, value in rows)
    return '\n'.join(['| | |', '|---|---|', *lines])


def _plain(text: str) -> str:
    """Returns a text as Markdown that shows it: a file's `meta` may come from anyone."""
    text = ' '.join(text.split())[:LONGEST]
    return re.sub(r'([\\`*\[\]<>|!#&])', r'\\\1', text)
