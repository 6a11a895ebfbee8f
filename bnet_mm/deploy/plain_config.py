"""The part of a config that inference needs, as text, and back without running what it names.

A config in a file may come from anyone. mmengine's registries take any dotted name for a class and
call what they find; here each `type` must be the name of something registered.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, VISBACKENDS, VISUALIZERS

from bnet_mm.errors import InputError
from bnet_mm.openmmlab.config import walk
from bnet_mm.openmmlab.libraries import LIBRARIES, check_library

# What building and the libraries' own inference functions look at.
KEYS = ('default_scope', 'model', 'test_pipeline', 'visualizer')
# Entries of a model that have weights, or code with them, read when it is built or initialized.
SOURCE = re.compile(
    r'init_cfg|.*(pretrained|checkpoint|ckpt|teacher_config|name_or_path|remote_code).*'
)
# A type that mmaction2 compares with, and builds nothing by.
CONSENSUS = 'AvgConsensus'
# What the kept entries of a config are built by.
REGISTRIES = (MODELS, TASK_UTILS, TRANSFORMS, VISBACKENDS, VISUALIZERS)
SCOPES = (*LIBRARIES, 'mmengine', 'mmcv')
TYPE = re.compile(rf'(?:({"|".join(SCOPES)})\.)?([A-Za-z_]\w*)')
CLASS_PATH = re.compile(r'(\w+)\.(?:\w+\.)*(\w+)')
TUPLE, ITEMS = '(tuple)', '(items)'


def config_text(cfg: Config) -> str:
    """Returns what inference needs of `cfg`, as JSON.

    That is the model, without where its first weights came from, the test pipeline and the scope.

    Raises:
        InputError: the config holds more than plain values, or what `config_of_text` would refuse.
    """
    plain = cfg.to_dict()
    kept = {key: plain[key] for key in KEYS if plain.get(key) is not None}
    dataset = (plain.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if dataset.get('pipeline'):
        kept['test_dataloader'] = dict(dataset=dict(pipeline=dataset['pipeline']))
        kept.setdefault('test_pipeline', dataset['pipeline'])
    kept['model'] = _without_sources(kept.get('model'))
    text = as_text(_by_name(kept), 'config')
    config_of_text(text)
    return text


def config_of_text(text: str) -> Config:
    """Returns the config in `text`, each of whose types is registered by an OpenMMLab library.

    Raises:
        InputError: it is not such a text, or it asks for something that could run other code.
    """
    content = from_text(text, 'config')
    if not isinstance(content, dict) or not isinstance(content.get('model'), dict):
        raise InputError('the config in the file has no model')
    unknown = sorted(set(content) - {*KEYS, 'test_dataloader'})
    if unknown:
        raise InputError(f'the config in the file was refused: it has an entry {unknown[0]!r}')
    scope = content.get('default_scope')
    if scope not in LIBRARIES:
        raise InputError(f'the config in the file is of no OpenMMLab library: {scope!r}')
    check_library(scope)
    _check_model(content['model'])
    _check_types(content, _registered(scope))
    return Config(content)


def as_text(value: object, where: str) -> str:
    """Returns plain values as JSON that keeps tuples and keys that are no text.

    Raises:
        InputError: there is something else among them.
    """
    return json.dumps(_encoded(value, where))


def from_text(text: object, where: str) -> object:
    """Returns the values that `as_text` wrote.

    Raises:
        InputError: it is not such a text.
    """
    try:
        return _decoded(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f'the {where} in the file is damaged: {error}') from error


def _encoded(value: object, where: str) -> object:
    if hasattr(value, 'tolist'):  # numpy's arrays and scalars
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return {TUPLE: [_encoded(v, f'{where}.{i}') for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [_encoded(v, f'{where}.{i}') for i, v in enumerate(value)]
    if isinstance(value, dict):
        if all(isinstance(key, str) and key not in (TUPLE, ITEMS) for key in value):
            return {key: _encoded(v, f'{where}.{key}') for key, v in value.items()}
        return {ITEMS: [[_encoded(k, where), _encoded(v, where)] for k, v in value.items()]}
    raise InputError(
        f'{where} is {value!r}, of {type(value).__name__}: only numbers, texts, lists and dicts '
        f'can be kept in a file without code'
    )


def _decoded(value: object) -> object:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {TUPLE}:
            return tuple(_decoded(item) for item in value[TUPLE])
        if value.keys() == {ITEMS}:
            return {_decoded(key): _decoded(item) for key, item in value[ITEMS]}
        return {key: _decoded(item) for key, item in value.items()}
    return value


def _is_source(key: object, value: object) -> bool:
    # True and False are switches (use_checkpoint of some networks), but for code from elsewhere.
    switch = value is None or value is False or (value is True and 'checkpoint' in str(key))
    return not switch and SOURCE.fullmatch(str(key)) is not None


def _without_sources(node: object) -> object:
    if isinstance(node, dict):
        return {k: _without_sources(v) for k, v in node.items() if not _is_source(k, v)}
    if isinstance(node, (list, tuple)):
        return type(node)(_without_sources(item) for item in node)
    return node


def _by_name(node: object) -> object:
    """Returns a config with names for classes, which configs in Python have as paths to them."""
    if isinstance(node, dict):
        named = {key: _by_name(value) for key, value in node.items()}
        path = CLASS_PATH.fullmatch(str(named.get('type')))
        if path:
            scope, name = path.groups()
            named['type'] = f'{scope}.{name}' if scope in SCOPES else name
        return named
    if isinstance(node, (list, tuple)):
        return type(node)(_by_name(item) for item in node)
    return node


def _registered(scope: str) -> dict[str, set[str]]:
    """Returns the names that each library has registered, and mmengine's and mmcv's under ''."""
    import_module(f'{scope}.registry')
    import mmcv.ops  # every library needs mmcv; where it is missing, check_library says so

    # mmdet takes RoIAlign, nms and their like from there by name, without a registry.
    names: dict[str, set[str]] = {'': {*mmcv.ops.__all__, CONSENSUS}}
    for root in REGISTRIES:
        names[''] |= set(root.module_dict)
        for registry in root.children.values():
            # Others that are imported already count, too: a segmentor may have mmpretrain's body.
            if registry.scope == scope:
                registry.import_from_location()
            names.setdefault(registry.scope, set()).update(registry.module_dict)
    return names


def _check_types(content: dict, names: dict[str, set[str]]) -> None:
    """Refuses a type that is not registered, and a scope that is not a library's."""
    for where, node in walk(content, 'config'):
        if not isinstance(node, dict):
            continue
        if 'type' in node:
            _check_type(node['type'], f'{where}.type', names)
        if node.get('_scope_', SCOPES[0]) not in SCOPES:
            raise InputError(f'{where} was refused: it is of the scope {node["_scope_"]!r}')


def _check_type(kind: object, where: str, names: dict[str, set[str]]) -> None:
    match = TYPE.fullmatch(kind) if isinstance(kind, str) else None
    if match is None:
        raise InputError(
            f'{where} was refused: {kind!r} is not the name of something that an OpenMMLab library '
            f'has registered'
        )
    scope, name = match.groups()
    if scope in LIBRARIES and find_spec(scope) is not None:
        names = {**names, scope: _registered(scope)[scope]}
    if not any(name in names.get(s, ()) for s in ([scope, ''] if scope else names)):
        raise InputError(
            f'{where}: {kind} is not registered; if it is your own, import its module first'
        )


def _check_model(model: dict) -> None:
    """Refuses what has files read while a model is built."""
    for where, node in walk(model, 'config.model'):
        for key, value in node.items() if isinstance(node, dict) else ():
            if _is_source(key, value):
                raise InputError(f'{where}.{key} was refused: the weights are in the file itself')
        if isinstance(node, str) and ('/' in node or '\\' in node):
            raise InputError(f'{where} was refused: {node!r} names a file')
