"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields an empty file beside `path`, to be written; at the end it takes the place of `path`.

    A reader sees the old file or the whole new one. On an exception nothing is left behind.
    """
    with NamedTemporaryFile(
        dir=path.parent, prefix=f'.{path.name}.', suffix='.part', delete=False
    ) as file:
        part = Path(file.name)
    try:
        yield part
        with part.open('rb') as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
