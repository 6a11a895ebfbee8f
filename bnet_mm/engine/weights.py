"""Where the weights of a run come from, and whether they have arrived: compared, not believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from bnet_mm.checkpoint import Taken, contents_of, read_checkpoint, taken_from
from bnet_mm.checkpoint.adapt import loadable
from bnet_mm.checkpoint.architecture import some
from bnet_mm.checkpoint.prefixes import beginnings, below, prefixes_of
from bnet_mm.errors import InputError, program
from bnet_mm.openmmlab.config import is_pretrained, pretrained_sources
from bnet_mm.text import without_prefix


@dataclass(frozen=True)
class Source:
    """A file of weights, and the part of a model that is loaded from it.

    Attributes:
        where: the entry that names the file: a path in the config, 'load_from' or 'resume'.
        part: name of the module, '' for the whole model.
        file: path or URL.
        prefix: of the tensors in the file that are taken; '' for all.
    """

    where: str
    part: str
    file: str
    prefix: str = ''


def check_weights(runner: Runner) -> Iterator[tuple[bool, str]]:
    """Yields a line on each source of a run's weights, and whether it is a warning.

    What the model holds is compared with the files, so that it does not matter how the libraries
    load them. Call it before the first step.

    Raises:
        InputError: nothing of a file was loaded.
    """
    model = runner.model
    if is_model_wrapper(model):
        if not isinstance(model, (DistributedDataParallel, DataParallel)):
            kind = type(model).__name__  # its parameters are in pieces
            yield False, f'Weights: not compared with their files, since a {kind} shares them out'
            return
        model = model.module
    sources = list(sources_of(runner.cfg, model))
    for source in sources:
        part = model.get_submodule(source.part)
        try:
            checkpoint = _read(source.file)
            state = contents_of(_as_resumed(checkpoint, source, runner)).state
            if source.prefix:
                state = {name: state[key] for key, name in below(state, source.prefix).items()}
        except InputError as error:
            yield True, f'Weights: {source.part or "all"}: not compared with {source.file}: {error}'
            continue
        taken = taken_from(state, part)
        inflated = any(tensor.ndim == 5 for tensor in part.parameters())  # from two dimensions
        if not taken.count and not inflated and not _has_names(checkpoint, source, part):
            raise InputError(_nothing(source, part, checkpoint, runner.cfg))
        rest = '; the rest from random values' if source is sources[-1] and source.part else ''
        yield bool(taken.missing), _line(source, taken) + rest
    if not sources:
        yield False, _random(runner.cfg)


def sources_of(cfg: Config, model: nn.Module) -> Iterator[Source]:
    """Yields the sources of a model's weights; one that replaces all others alone."""
    if cfg.get('load_from'):
        yield Source('resume' if cfg.get('resume') else 'load_from', '', str(cfg.load_from))
        return
    noted: set[str] = set()
    wholes: list[str] = []  # modules whose parts mmengine initializes no more
    for name, module in model.named_modules():
        if any(name.startswith(whole) for whole in wholes):
            continue
        for file, prefix, where in _noted(module):
            noted.add(file)
            wholes.append(f'{name}.' if name else '')
            yield Source('.'.join(filter(None, ('model', name, where))), name, file, prefix)
    for where, file in pretrained_sources(cfg.get('model')):
        if file not in noted and not wholes:  # of a module that keeps no note of it
            yield Source(where, '', file)


def _noted(module: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Yields the files, with prefix and entry, that a module says it was initialized from."""
    inits = getattr(module, 'init_cfg', None)
    for init in inits if isinstance(inits, (list, tuple)) else [inits]:
        if isinstance(init, dict) and is_pretrained(init) and init.get('checkpoint'):
            yield str(init['checkpoint']), init.get('prefix') or '', 'init_cfg'
            return
    pretrained = getattr(module, 'pretrained', None)
    if isinstance(pretrained, str):
        yield pretrained, '', 'pretrained'


def _read(file: str) -> object:
    if '://' not in file:
        return read_checkpoint(file)
    return CheckpointLoader.load_checkpoint(file, map_location='cpu')  # from the cache by now


def _as_resumed(checkpoint: object, source: Source, runner: Runner) -> object:
    """Returns what a training goes on with, where averages of its weights are in their place."""
    averages = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    if source.where != 'resume' or not averages or not isinstance(checkpoint, dict):
        return checkpoint
    own = checkpoint.get('ema_state_dict')
    if not isinstance(own, dict):
        return checkpoint
    return {without_prefix(str(name), 'module.'): value for name, value in own.items()}


def _line(source: Source, taken: Taken) -> str:
    counted = f'{taken.count} of {taken.total} tensors'
    if source.where == 'resume':
        line = f'Weights: all, with the optimizer, resumed from {source.file}: {counted}'
    else:
        line = f'Weights: {source.part or "all"}: {counted} from {source.file}'
    if source.prefix:
        line += f', below {source.prefix}'
    if taken.missing:
        line += f'; not from it: {some(taken.missing)}'
    if taken.left:
        line += f'; left over in it: {some(taken.left)}'
    return line


def _opened(checkpoint: object) -> dict:
    """Returns the part of a file in which the libraries look for tensors."""
    opened = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else {}
    return opened if isinstance(opened, dict) else {}


def _has_names(checkpoint: object, source: Source, part: nn.Module) -> bool:
    """Tells whether a file has any of a module's tensors by name and shape."""
    own = part.state_dict()
    for name, value in _opened(checkpoint).items():
        name = without_prefix(without_prefix(str(name), 'module.'), source.prefix)
        if name in own and own[name].shape == getattr(value, 'shape', None):
            return True
    return False


def _nothing(source: Source, part: nn.Module, checkpoint: object, cfg: Config) -> str:
    """Returns why nothing was loaded, and what to do."""
    names = list(contents_of(checkpoint).state)
    whole = source.part == ''
    network = f'{"model" if whole else source.part} ({type(part).__name__})'
    line = f'{source.where}: no tensor of {source.file} was loaded into {network}'
    prefixes = prefixes_of(names, loadable(part))
    if not prefixes:
        ours = ', '.join(beginnings(loadable(part), 3))
        return (
            f'{line}: it belongs to another network; its names begin with '
            f'{", ".join(beginnings(names))}, those of the network with {ours}'
        )
    prefix = next((found for found in prefixes if found), '')
    if prefix:
        line += f': the file has it below {" and ".join(map(repr, prefixes))}'
    else:
        line += ': it is in an entry of the file in which the libraries do not look'
    opened = _opened(checkpoint)
    by_prefix = prefix and not whole and any(str(name).startswith(prefix) for name in opened)
    options = ' --what model' if whole else ''
    if not any('layer1.0.' in name for name in part.state_dict()):
        options += f' --config {cfg.filename or "CONFIG"}'
    if prefix:
        options += f' --prefix {prefix}'
    convert = f'{program("convert_checkpoint")} {source.file} OUT.pth{options}'
    if by_prefix:
        return f'{line}; choose one with {source.where}.prefix={prefix!r}, or write it by {convert}'
    return f'{line}; write it by {convert}, and name OUT.pth'


def _random(cfg: Config) -> str:
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    line = 'Weights: all from random values'
    if backbone.get('norm_eval') or backbone.get('frozen_stages', -1) >= 0:
        line += (
            '. WARNING: norm_eval or frozen_stages keep a part of this backbone at its random '
            'initialization; to train from scratch set model.backbone.norm_eval=False and '
            'model.backbone.frozen_stages=-1'
        )
    return line
