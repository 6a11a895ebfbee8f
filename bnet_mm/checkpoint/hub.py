"""A checkpoint as a folder that the Hugging Face Hub shows: weights, a few facts, a model card.

- `model.safetensors` holds the tensors under the names they had, and `meta`.
- `config.json` says k and dilation of each BNET: safetensors keep no metadata of a state dict, in
  which a kernel says that it is not dilated.
- `README.md` is the card (`bnet_mm.checkpoint.card`).

Writing and reading a folder need no network and not the package huggingface_hub.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, overload

from torch import Tensor, nn

from bnet_mm.checkpoint.adapt import adapt
from bnet_mm.checkpoint.architecture import some
from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.checkpoint.card import card_text
from bnet_mm.checkpoint.contents import STATES, Contents, contents_of
from bnet_mm.checkpoint.loading import load_state
from bnet_mm.checkpoint.reading import read_checkpoint
from bnet_mm.checkpoint.writing import write_checkpoint
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms
from bnet_mm.layers.depthwise import check_kernel, said_dilation
from bnet_mm.models.authors import rename_kernels
from bnet_mm.models.placement import enhance_at
from bnet_mm.text import without_suffix
from bnet_mm.version import __version__

WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
FILES = (WEIGHTS, CONFIG, CARD)
HUB_NAME = re.compile(r'[\w.-]+/[\w.-]+')
# No config of this package is near it.
LARGEST_CONFIG = 1 << 22
# Of each BNET, by the name of its module: k, and its dilation where that is known.
Kernels = Dict[str, Tuple[int, Optional[int]]]


def save_pretrained(
    source: nn.Module | Mapping | str | Path,
    folder: str | Path,
    license: str | None = None,
    tags: Iterable[str] = (),
    metrics: Mapping[str, float] | None = None,
    title: str | None = None,
    force: bool = False,
) -> Path:
    """Writes a checkpoint as a folder for the Hub, which `from_pretrained` reads.

    Args:
        source: a model, a checkpoint (a state dict, or one with `meta` beside it), or a file of
            one, of which what only training needs is left out. The `meta` goes along whole, a
            config with its paths too, if there is one.
        folder: is made if it is missing; other files in it are left alone.
        license: identifier of the weights' licence, for the card; it is not guessed.
        tags: for the card, beside this package's.
        metrics: name -> value, for the card.
        title: of the card (default: the folder's name).
        force: whether files that are there may be replaced.

    Returns:
        The folder.

    Raises:
        InputError: the source is no checkpoint, or the folder has such files or cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bnet_mm import BNET
        >>> with TemporaryDirectory() as folder:
        ...     made = save_pretrained(nn.Sequential(BNET(4, k=5)), f'{folder}/mine', 'mit')
        ...     print(sorted(path.name for path in made.iterdir()))
        ['README.md', 'config.json', 'model.safetensors']
    """
    if isinstance(source, (str, Path)):
        source = read_checkpoint(source)  # type: ignore[assignment]
    checkpoint = source.state_dict() if isinstance(source, nn.Module) else source
    contents = contents_of(checkpoint)
    kernels = _kernels(contents.state, _metadata(checkpoint))
    if contents.unexplained:
        warnings.warn(f'not tensors, and left out: {some(contents.unexplained)}', stacklevel=2)
    folder = _made(folder, force)
    card = card_text(contents, kernels, title or folder.absolute().name, license, tags, metrics)
    config = {
        'library_name': 'bnet_mm',
        'bnet_mm': __version__,
        'bnet': {
            name: {'k': k, **({} if dilation is None else {'dilation': dilation})}
            for name, (k, dilation) in kernels.items()
        },
    }
    write_checkpoint({'meta': contents.meta, 'state_dict': contents.state}, folder / WEIGHTS, force)
    texts = {CONFIG: json.dumps(config, indent=1) + '\n', CARD: card}
    try:
        for name, text in texts.items():
            write_whole(folder / name, partial(Path.write_text, data=text, encoding='utf-8'))
    except OSError as error:
        raise InputError(f'{folder} cannot be written: {error.strerror}') from error
    return folder


@overload
def from_pretrained(
    name: str | Path, model: None = None, strict: bool = True, **options: Any
) -> dict[str, Tensor]: ...
@overload
def from_pretrained(
    name: str | Path, model: nn.Module, strict: bool = True, **options: Any
) -> nn.Module: ...
def from_pretrained(
    name: str | Path, model: nn.Module | None = None, strict: bool = True, **options: Any
) -> dict[str, Tensor] | nn.Module:
    """Returns the tensors of a published checkpoint, or a model with them.

    Args:
        name: a folder of `save_pretrained`, or 'owner/name' on the Hub, where no such folder is.
        model: takes the tensors, under the names it has for them (see `adapt`). Where it has plain
            norms alone, those that are BNET in the checkpoint become BNET in it, each with its own
            k and dilation; a model with BNET must have the checkpoint's. It stays in its mode,
            training or evaluation.
        strict: whether the model must have all tensors, of these shapes, and no others. Otherwise
            the rest, a classifier for other classes say, keeps its values, and a warning says so.
        options: for `huggingface_hub.snapshot_download`: `revision`, `token`, `cache_dir`.

    Returns:
        Names and tensors of the state dict, or `model`.

    Raises:
        InputError: there is no such folder, its files are damaged or missing, or the Hub gives
            none; the checkpoint is not of this model, of which a part may have been changed.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from bnet_mm import BNET
        >>> with TemporaryDirectory() as folder:
        ...     _ = save_pretrained(nn.Sequential(BNET(4, k=5)), folder)
        ...     model = from_pretrained(folder, nn.Sequential(nn.BatchNorm2d(4)))
        ...     from_pretrained(folder)['0.dw.weight'].shape, model[0].k
        (torch.Size([4, 1, 5, 5]), 5)
    """
    folder = _found(name, options)
    contents, kernels = _read(folder)
    state: OrderedDict[str, Tensor] = OrderedDict(contents.state)
    state._metadata = OrderedDict(  # type: ignore[attr-defined]
        (f'{site}.dw', {'dilation': dilation})
        for site, (_, dilation) in kernels.items()
        if dilation is not None
    )
    if model is None:
        return state
    _place(model, kernels)
    adapted = adapt(state, model)
    other = []
    if not strict:
        own = model.state_dict()
        other = [key for key in adapted if key in own and own[key].shape != adapted[key].shape]
        adapted = _without(adapted, other)
    missing, left = load_state(model, adapted, folder, strict=strict)
    if missing or left:
        missing = [key for key in missing if key not in other]
        said = {'has no': missing, 'has in other shapes': other, 'has beyond this model': left}
        parts = [f'{what} {len(keys)} ({keys[0]}, ...)' for what, keys in said.items() if keys]
        warnings.warn(f'of the tensors {folder} {"; ".join(parts)}', stacklevel=2)
    return model


def push_to_hub(
    folder: str | Path, repo: str, private: bool | None = None, token: str | None = None
) -> str:
    """Uploads a folder of `save_pretrained`, and no other files of it, to the Hub.

    Args:
        folder: is read first, as whoever takes it from there will.
        repo: 'owner/name', which is made if it is missing.
        private: whether a repository that is made is private (default: as the owner has set).
        token: of the owner (default: what `hf auth login` has left).

    Returns:
        The address of the commit.

    Raises:
        InputError: the folder is not whole, huggingface_hub is missing, or the Hub refuses it.
    """
    folder = Path(folder).expanduser()
    absent = [name for name in FILES if not (folder / name).is_file()]
    if absent:
        raise InputError(f'{folder} has no {absent[0]}: write it with save_pretrained')
    _read(folder)
    _check_hub_name(repo)
    hub = _hub()
    try:
        api = hub.HfApi(token=token, library_name='bnet_mm', library_version=__version__)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            allow_patterns=list(FILES),
            commit_message='BNET checkpoint by bnet_mm',
        )
    except Exception as error:  # of whichever library for HTTP the package uses
        raise InputError(f'{folder} was not uploaded to {repo}: {_first_line(error)}') from error
    return str(commit.commit_url)


def _made(folder: str | Path, force: bool) -> Path:
    try:
        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in FILES if (folder / name).exists()]
    except (OSError, RuntimeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise InputError(f'{folder} cannot be a folder of files: {reason}') from error
    if there and not force:
        raise InputError(
            f'{folder / there[0]} exists already and was kept: choose another folder, or force'
        )
    return folder


def _found(name: str | Path, options: dict[str, Any]) -> Path:
    """Returns the folder of that name, which comes from the Hub if there is none here."""
    try:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder
        is_there = folder.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f'{name!r} is no name of a folder') from error
    if is_there:
        raise InputError(
            f'{name} is a file, and a folder of save_pretrained is needed: '
            f'bnet_mm.checkpoint.read_checkpoint reads a file'
        )
    _check_hub_name(str(name), f'there is no folder {name}, and ')
    hub = _hub(f'there is no folder {name}, and ')
    try:
        return Path(hub.snapshot_download(str(name), allow_patterns=[WEIGHTS, CONFIG], **options))
    except Exception as error:  # of whichever library for HTTP the package uses
        raise InputError(
            f'there is no folder {name}, and the Hub gave none: {_first_line(error)}'
        ) from error


def _read(folder: Path) -> tuple[Contents, Kernels]:
    """Returns what a folder holds, with k and dilation of each BNET by its name here."""
    if not (folder / WEIGHTS).is_file():
        raise InputError(f'{folder} has no {WEIGHTS}: it is no folder of save_pretrained')
    contents = contents_of(read_checkpoint(folder / WEIGHTS))
    said = _read_config(folder / CONFIG)
    metadata = {f'{site}.dw': {'dilation': spread} for site, (_, spread) in said.items() if spread}
    kernels = _kernels(contents.state, metadata)
    # A folder that others have put together may have no config: then the tensors say what they say.
    if said and {site: kernels.get(site) for site in said} != said:
        raise InputError(
            f'{CONFIG} and {WEIGHTS} in {folder} are not of the same network: fetch or write both '
            f'again'
        )
    return contents, kernels


def _read_config(path: Path) -> Kernels:
    try:
        if not path.exists():
            return {}
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError('too large')
        entries = json.loads(path.read_text('utf-8')).get('bnet', {})
        kernels = {}
        for site, entry in entries.items():
            k, dilation = check_kernel(entry['k'], entry.get('dilation', 1))
            kernels[site] = (k, dilation if 'dilation' in entry else None)
        return kernels
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f'{path} is none of this package: fetch or write it again') from error


def _kernels(state: Mapping[str, Tensor], metadata: Mapping[str, Mapping]) -> Kernels:
    """Returns k and dilation of each BNET of a checkpoint, the authors' names among them."""
    names = rename_kernels(state)
    kernels = {}
    for key, value in state.items():
        name = names.get(key, key)
        if name.endswith('.dw.weight') and value.ndim == 4:
            site, own = without_suffix(name, '.dw.weight'), without_suffix(key, '.weight')
            said = said_dilation(state.get(f'{own}.dilation'), metadata.get(f'{site}.dw', {}))
            try:
                k, dilation = check_kernel(value.shape[-1], 1 if said is None else said)
            except InputError as error:
                raise InputError(f'{key} is no kernel of BNET: {error}') from error
            kernels[site] = (k, None if said is None and k > 1 else dilation)
    return kernels


def _metadata(checkpoint: object) -> Mapping[str, Mapping]:
    """Returns the metadata of a state dict, wherever a checkpoint has that."""
    inside = [checkpoint.get(name) for name in STATES] if isinstance(checkpoint, dict) else []
    for state in (checkpoint, *inside):
        if isinstance(metadata := getattr(state, '_metadata', None), dict):
            return {name: said for name, said in metadata.items() if isinstance(said, dict)}
    return {}


def _place(model: nn.Module, kernels: Kernels) -> None:
    """Makes norms of a model without BNET what they are in the checkpoint."""
    if next(named_norms(model, EnhancedNorm), None) is not None:
        return
    modules = dict(model.named_modules(remove_duplicate=False))
    if kernels and all(site in modules for site in kernels):  # or `adapt` says what is different
        enhance_at(model, {site: (k, dilation or 1) for site, (k, dilation) in kernels.items()})


def _without(state: Mapping[str, Tensor], keys: Iterable[str]) -> Mapping[str, Tensor]:
    kept = OrderedDict((key, value) for key, value in state.items() if key not in set(keys))
    kept._metadata = getattr(state, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return kept


def _hub(before: str = '') -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f'{before}the Hub needs the package huggingface_hub: pip install huggingface_hub'
        ) from error
    return huggingface_hub


def _check_hub_name(name: str, before: str = '') -> None:
    if not HUB_NAME.fullmatch(name):
        raise InputError(f"{before}{name!r} is no name on the Hub, which is like 'owner/name'")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
