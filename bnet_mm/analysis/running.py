"""Runs networks on pictures, and gathers what their layers take and give."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from bnet_mm.errors import InputError


def clip_frames(network: nn.Module) -> int:
    """Returns between how many frames a network shifts; 1 for one that looks at each by itself."""
    return getattr(network, 'num_segments', 1)


@contextmanager
def sized_errors(network: nn.Module, pictures: Tensor, option: str = '--shape') -> Iterator[None]:
    """Turns a network's failure on pictures of a size that it cannot take into one sentence."""
    try:
        yield
    except InputError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        height, width = pictures.shape[-2:]
        reason = str(error).partition('\n')[0] or type(error).__name__
        raise InputError(
            f'{type(network).__name__} cannot run on a picture of {width}x{height}, perhaps on one '
            f'of another size ({option}): {reason}'
        ) from error


@contextmanager
def recorded(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, tuple]]:
    """Gathers input and output of modules, by name, of the first time that each is used.

    Tensors are copies: what follows a layer may work in place.
    """
    pairs: dict[str, tuple] = {}

    def record_of(name: str):
        def record(module: nn.Module, inputs: tuple, output: object) -> None:
            pairs.setdefault(name, (_copy(inputs[0] if inputs else None), _copy(output)))

        return record

    handles = [model.get_submodule(name).register_forward_hook(record_of(name)) for name in names]
    try:
        yield pairs
    finally:
        for handle in handles:
            handle.remove()


def _copy(value: object) -> object:
    return value.detach().clone() if isinstance(value, Tensor) else value
