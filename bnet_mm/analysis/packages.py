"""Checks for the optional packages of single analyses."""

from __future__ import annotations

from importlib.util import find_spec

from bnet_mm.errors import InputError


def need(package: str) -> None:
    """Raises InputError unless a package of the extra `analysis` is installed."""
    if find_spec(package) is None:
        raise InputError(
            f'this needs the package {package}, which is not installed: run `make env` in the '
            f"checkout, or `pip install 'bnet_mm[analysis]'`"
        )
