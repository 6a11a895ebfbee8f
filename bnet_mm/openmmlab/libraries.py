"""The four OpenMMLab libraries: one row each, and the errors where one is missing.

A fifth library is one more row of `LIBRARIES`, and a module `backbones/<scope>.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mmengine.config.utils import MODULE2PACKAGE
from torch import nn

from bnet_mm.errors import ExplainedError, InputError


@dataclass(frozen=True)
class Library:
    """What differs from one OpenMMLab library to the next.

    Attributes:
        package: name of its distribution.
        extra: of this package, which installs it.
        input_shape: height and width of an image where a config names none: those at which the
            paper counts costs (COCO's images, Cityscapes' crop, ImageNet's and UCF-101's).
        funnel: backbones that also take FReLU.
        decodes_rgb: whether its pipelines give RGB images before the data preprocessor.
        logits: name of the attribute that tells whether a model has a head with one score for each
            class; '' where every model has, None where none has.
    """

    package: str
    extra: str
    input_shape: tuple[int, int]
    funnel: tuple[str, ...] = ()
    decodes_rgb: bool = False
    logits: str | None = None


# By scope: the name of the importable package, and `default_scope` in configs.
LIBRARIES = {
    'mmdet': Library('mmdet', 'det', (800, 1280), funnel=('ResNet', 'ResNeXt')),
    'mmseg': Library('mmsegmentation', 'seg', (512, 1024), logits=''),
    'mmaction': Library(
        'mmaction2', 'action', (224, 224), decodes_rgb=True, logits='with_cls_head'
    ),
    'mmpretrain': Library(
        *('mmpretrain', 'cls', (224, 224)),
        funnel=('ResNet', 'ResNeXt', 'ResNet_CIFAR'),
        logits='with_head',
    ),
}


def library_of(model: nn.Module) -> str | None:
    """Returns the scope of the library that a model's class, or one of its bases, belongs to."""
    packages = (base.__module__.partition('.')[0] for base in type(model).__mro__)
    return next((package for package in packages if package in LIBRARIES), None)


def check_library(scope: str | None) -> None:
    """Raises InputError unless the library of a config's `default_scope` can be imported."""
    if scope not in LIBRARIES:
        return
    for module in ('mmcv', scope):
        if find_spec(module) is None:
            package = LIBRARIES[scope].package if module == scope else module
            raise InputError(
                f'this config needs {package}, which is not installed: {_how_to_install(scope)}'
            )
    try:
        __import__(scope)
    except (ImportError, AssertionError) as error:
        raise InputError(f'{scope} cannot be imported: {error}') from error


def package_error(error: Exception) -> str:
    """Returns what a failed import or a missing distribution means for the user."""
    # 'No module named', by its name; else mmengine's 'mmaction2 is not installed, please ...'.
    name = re.split(r'[.\s]', getattr(error, 'name', None) or str(error))[0]
    if name == 'pkg_resources':
        return "the `mmdet::` bases need pkg_resources: pip install 'setuptools<81'"
    for scope, library in LIBRARIES.items():
        if name in (scope, library.package) and find_spec(scope) is None:
            return (
                f'it builds on {library.package}, which is not installed: {_how_to_install(scope)}'
            )
    return f'it needs a package that is not installed: {error}'


@contextmanager
def bases_by_module() -> Iterator[None]:
    """Finds the bases of `mmseg::` and `mmaction::` while it lasts, whoever published the library.

    mmengine looks for a distribution of the stock name. Where another one brings the module
    (onedl-mmsegmentation), the module's own name is what it finds.
    """
    stock = {
        scope: package
        for scope, package in MODULE2PACKAGE.items()
        if scope != package and not _is_distribution(package) and find_spec(scope) is not None
    }
    MODULE2PACKAGE.update({scope: scope for scope in stock})
    try:
        yield
    finally:
        MODULE2PACKAGE.update(stock)


def _is_distribution(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


# Of what registries and classes say where arguments are not theirs, or are not there.
MISFITS = (
    *('registry', 'unexpected keyword argument'),
    *('required positional argument', 'required keyword-only argument'),
)


@contextmanager
def config_errors() -> Iterator[None]:
    """Turns what a library says of a config that it cannot build into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        if any(words in str(error) for words in MISFITS):
            raise ExplainedError(f'the config does not fit the library: {error}') from error
        raise


def _how_to_install(scope: str) -> str:
    return f"run `make env` in the checkout, or `pip install 'bnet_mm[{LIBRARIES[scope].extra}]'`"
