"""The version of the package."""

from __future__ import annotations

__version__ = '0.2.0'

OLDEST_TORCH = (1, 13)


def check_torch() -> None:
    """Checks that there is a torch that the package can be used with.

    Raises:
        ImportError: there is none, or it is too old.
    """
    oldest = '.'.join(map(str, OLDEST_TORCH))
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'bnet_mm needs torch {oldest} or later, which cannot be imported ({error}): '
            f'install it as https://pytorch.org says'
        ) from error
    if tuple(map(int, torch.__version__.split('.')[:2])) < OLDEST_TORCH:
        raise ImportError(
            f'bnet_mm needs torch {oldest} or later, and torch {torch.__version__} is installed'
        )
