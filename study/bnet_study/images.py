"""Reads photos in a folder for each class, once, into one array of bytes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.errors import InputError

EXTENSIONS = {'.jpg', '.jpeg', '.png', '.bmp', '.webp'}
TRAIN = ('train', 'training')
TEST = ('test', 'val', 'valid', 'validation')
# Of a folder without a test split, this share of each class is the test set.
HELD_OUT = 5
TINY_IMAGENET = 'val_annotations.txt'

Reader = Callable[[], bytes]


@dataclass(frozen=True)
class Images:
    """A data set, decoded.

    Attributes:
        train, test: photos `(N, 3, size, size)`, uint8, and labels `(N,)`, int64.
        classes: their names, in the order of the labels.
        digest: SHA-256 of all of it, shortened: who has the same, has the same data.
        remark: what should be said of how it was read, or ''.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...]
    digest: str
    remark: str


def read_images(source: str | Path, size: int, cache: str | Path) -> Images:
    """Reads a data set of photos, from the cache where it was read before.

    Args:
        source: a folder, or a zip or tar archive of one, with `train/CLASS/...` and `test` or `val`
            alike; or with `CLASS/...` alone, of which every fifth photo is held out for testing.
            Tiny-ImageNet's `val/val_annotations.txt` is read.
        size: photos become `size` x `size`: the shorter side is scaled, the middle cut out.
        cache: a folder for the decoded photos.

    Raises:
        InputError: there is no such data set, or a photo cannot be read.
    """
    source, cache = Path(source), Path(cache)
    if not source.exists():
        raise InputError(
            f'the data {source} is not there; name the folder that holds it with --data-root'
        )
    name = f'{source.stem.partition(".")[0]}-{size}-{_key(source)}'
    folder = cache / name
    if not (folder / 'about.json').is_file():
        with _files(source) as files:
            _decode(source, files, size, folder)
    about = json.loads((folder / 'about.json').read_text())
    arrays = {
        split: (
            # Copied on writing, which nobody does: torch takes no arrays that are read-only.
            np.load(folder / f'{split}.npy', mmap_mode='c'),
            np.load(folder / f'{split}_labels.npy'),
        )
        for split in ('train', 'test')
    }
    return Images(**arrays, classes=tuple(about['classes']), digest=about['digest'],
                  remark=about['remark'])  # fmt: skip


def _key(source: Path) -> str:
    """Changes with the data: an archive's size and time, or the names and sizes in a folder."""
    if source.is_file():
        facts = [str(source.resolve()), source.stat().st_size, source.stat().st_mtime_ns]
    else:
        facts = [str(source.resolve())]
        for file in sorted(source.rglob('*')):
            if file.suffix.lower() in EXTENSIONS or file.name == TINY_IMAGENET:
                facts += [str(file.relative_to(source)), file.stat().st_size]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]


@contextmanager
def _files(source: Path) -> Iterator[dict[str, Reader]]:
    """Gives the files of a folder or an archive by their paths; nothing is unpacked."""
    if source.is_dir():
        yield {
            file.relative_to(source).as_posix(): file.read_bytes
            for file in sorted(source.rglob('*'))
            if file.is_file()
        }
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names = sorted(i.filename for i in archive.infolist() if not i.is_dir())
            yield {name: lambda name=name: archive.read(name) for name in names}
    elif tarfile.is_tarfile(source):
        with tarfile.open(source) as archive:
            # Read in the order of the archive: a compressed one has no other.
            yield {
                member.name: lambda member=member: archive.extractfile(member).read()
                for member in archive
                if member.isfile()
            }
    else:
        raise InputError(f'{source} is neither a folder nor a zip or tar archive')


def _decode(source: Path, files: dict[str, Reader], size: int, folder: Path) -> None:
    splits, remark = _splits(source, files)
    classes = sorted({name for split in splits.values() for name, _ in split})
    print(f'{source}: {len(splits["train"])} and {len(splits["test"])} photos of '
          f'{len(classes)} classes are decoded once, to {folder}', flush=True)  # fmt: skip
    if remark:
        print(remark, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for split, samples in splits.items():
        labels = np.array([classes.index(name) for name, _ in samples], np.int64)
        place = {path: i for i, (_, path) in enumerate(samples)}

        def write(part: Path, place: dict[str, int] = place) -> None:
            # Mapped: all photos may be more than the memory.
            shape = (len(place), 3, size, size)
            photos = np.lib.format.open_memmap(part, 'w+', np.uint8, shape)
            # In the order of the files, for archives that can be read in that one alone.
            for path, read in files.items():
                if path in place:
                    photos[place[path]] = _photo(source, path, read, size)
            photos.flush()
            for start in range(0, len(photos), 1000):
                digest.update(photos[start : start + 1000])

        write_whole(folder / f'{split}.npy', write)
        digest.update(labels)
        _save_labels(folder / f'{split}_labels.npy', labels)
    about = dict(classes=classes, digest=digest.hexdigest()[:16], remark=remark)
    # Last, so that what has it is whole.
    write_whole(folder / 'about.json', lambda part: part.write_text(json.dumps(about)))


def _save_labels(file: Path, labels: np.ndarray) -> None:
    def write(part: Path) -> None:
        with part.open('wb') as stream:
            np.save(stream, labels)

    write_whole(file, write)


def _photo(source: Path, path: str, read: Reader, size: int) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(read())).convert('RGB')
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f'{source}: the photo {path} cannot be read: {error}') from error
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image).transpose(2, 0, 1)


def _splits(source: Path, files: dict[str, Reader]) -> tuple[dict, str]:
    """Returns `(class, path)` of each photo by split, and a remark."""
    photos = [p for p in files if PurePosixPath(p).suffix.lower() in EXTENSIONS]
    if not photos:
        raise InputError(f'{source} holds no photos ({", ".join(sorted(EXTENSIONS))})')
    top = _common(photos)
    below = {path: PurePosixPath(path).parts[top:] for path in photos}
    train = next((n for n in TRAIN if any(parts[0] == n for parts in below.values())), None)
    of_train = _of_split(train, below) if train else []
    # A set without labels, as Tiny-ImageNet's `test`, is passed over.
    tests = (_listed(n, files, below) or _of_split(n, below) for n in TEST) if train else ()
    known = {name for name, _ in of_train}
    test = next((samples for samples in tests if known & {name for name, _ in samples}), None)
    if test is not None:
        found, remark = {'train': of_train, 'test': test}, ''
    else:
        everything = of_train or [(p[0], path) for path, p in below.items() if len(p) > 1]
        found = _held_out(everything)
        remark = f'{source} has no test split: every {HELD_OUT}th photo of a class is held out'
    found = {split: sorted(samples) for split, samples in found.items()}
    for split, samples in found.items():
        if not samples:
            raise InputError(
                f'{source} has no {split} photos in a folder for each class (train/CLASS/..., '
                f'test/CLASS/... or val/CLASS/...)'
            )
    unknown = sorted({n for n, _ in found['test']} - {n for n, _ in found['train']})
    if unknown:
        raise InputError(
            f'{source}: the classes {", ".join(unknown[:5])} are in the test set alone'
        )
    return found, remark


def _of_split(split: str, below: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(p[1], path) for path, p in below.items() if p[0] == split and len(p) > 2]


def _listed(
    split: str, files: dict[str, Reader], below: dict[str, tuple[str, ...]]
) -> list[tuple[str, str]]:
    """Returns the photos of a split whose classes a list says, as Tiny-ImageNet's `val`."""
    listed = next((path for path in files if path.endswith(f'{split}/{TINY_IMAGENET}')), None)
    if listed is None:
        return []
    lines = files[listed]().decode().splitlines()
    classes = dict(line.split('\t')[:2] for line in lines if line)
    return [
        (classes[p[-1]], path) for path, p in below.items() if p[0] == split and p[-1] in classes
    ]


def _held_out(samples: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {'train': [], 'test': []}
    for name in {name for name, _ in samples}:
        of_class = [sample for sample in samples if sample[0] == name]
        for i, sample in enumerate(of_class):
            found['test' if i % HELD_OUT == HELD_OUT - 1 else 'train'].append(sample)
    return found


def _common(photos: list[str]) -> int:
    """Returns how many folders all photos share: archives often have one around all."""
    parts = [PurePosixPath(path).parts[:-1] for path in photos]
    shared = 0
    while all(len(p) > shared + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return shared
