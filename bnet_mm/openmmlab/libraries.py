"""The four OpenMMLab libraries: what they are called, and what is said where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from bnet_mm.errors import InputError

# Scope of a config -> name of the library's package and of the extra that installs it.
LIBRARIES = {
    'mmdet': ('mmdet', 'det'),
    'mmseg': ('mmsegmentation', 'seg'),
    'mmaction': ('mmaction2', 'action'),
    'mmpretrain': ('mmpretrain', 'cls'),
}


@contextmanager
def config_errors() -> Iterator[None]:
    """Turns what a library says of a config it cannot build into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        if 'registry' in str(error) or 'unexpected keyword argument' in str(error):
            raise InputError(f'the config does not fit the library: {error}') from error
        raise


def check_library(scope: str | None) -> None:
    """Raises InputError unless the library of a config's `default_scope` can be imported."""
    if scope not in LIBRARIES:
        return
    for module in ('mmcv', scope):
        if find_spec(module) is None:
            package, extra = LIBRARIES[scope] if module == scope else (module, LIBRARIES[scope][1])
            raise InputError(
                f'this config needs {package}, which is not installed: run `make env` in the '
                f"checkout, or `pip install 'bnet_mm[{extra}]'`"
            )
    try:
        __import__(scope)
    except (ImportError, AssertionError) as error:
        raise InputError(f'{scope} cannot be imported: {error}') from error


def package_error(error: Exception) -> str:
    """Returns what a failed import or a missing distribution means for the user."""
    name = (getattr(error, 'name', None) or str(error)).split('.')[0]
    if name == 'pkg_resources':
        return "the `mmdet::` bases need pkg_resources: pip install 'setuptools<81'"
    for scope, (package, extra) in LIBRARIES.items():
        if name in (scope, package) and find_spec(scope) is None:
            return (
                f'it builds on {package}, which is not installed: run `make env` in the checkout, '
                f"or `pip install 'bnet_mm[{extra}]'`"
            )
    return f'it needs a package that is not installed: {error}'
