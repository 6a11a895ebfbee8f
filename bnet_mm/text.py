"""What `str` has since Python 3.9."""

from __future__ import annotations


def without_prefix(text: str, prefix: str) -> str:
    """Returns `text.removeprefix(prefix)`."""
    return text[len(prefix) :] if text.startswith(prefix) else text


def without_suffix(text: str, suffix: str) -> str:
    """Returns `text.removesuffix(suffix)`."""
    return text[: len(text) - len(suffix)] if text.endswith(suffix) else text
