"""The checkpoints of a training: which one to resume from, and what of one to publish."""

from __future__ import annotations

from pathlib import Path

from bnet_mm.checkpoint.contents import contents_of
from bnet_mm.checkpoint.reading import read_checkpoint
from bnet_mm.checkpoint.writing import check_target, write_checkpoint
from bnet_mm.errors import InputError


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Returns the last complete checkpoint of a training in `work_dir`, or None.

    That is the one which the file `last_checkpoint` names. A job can die while it writes that file
    or the one it names; then it is the newest `epoch_*.pth` or `iter_*.pth` that can be read.
    """
    work_dir = Path(work_dir)
    note = work_dir / 'last_checkpoint'
    named = note.read_text().strip() if note.is_file() else ''
    written = sorted(
        [*work_dir.glob('epoch_*.pth'), *work_dir.glob('iter_*.pth')],
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    # The note holds the path as the job saw it: the work dir may have moved since, or be a copy of
    # one that goes on. What it names elsewhere is last: where checkpoints are kept beside.
    candidates = [work_dir / Path(named).name, *written, Path(named)] if named else written
    for path in candidates:
        try:
            if is_of_training(read_checkpoint(path)):
                return path
        except InputError:
            continue
    return None


def is_of_training(checkpoint: object) -> bool:
    """Returns whether a training can resume from what was read: weights alone are not enough."""
    return isinstance(checkpoint, dict) and {'optimizer', 'meta'} <= checkpoint.keys()


def publish(
    source: str | Path, target: str | Path, force: bool = False
) -> tuple[Path, dict[str, str]]:
    """Writes the weights and the metadata of `source`, without what only training needs.

    As OpenMMLab's own tool does, the first 8 digits of the file's SHA-256 are put before the suffix
    of `target`. Where a training kept averaged weights (EMA), `state_dict` is what was evaluated,
    and the other copy is left out.

    Returns:
        The file that was written, and what was left out and why.

    Raises:
        InputError: `source` cannot be read, or the file cannot be written.
    """
    check_target(target, force=True)
    checkpoint = read_checkpoint(source)
    contents = contents_of(checkpoint)
    assert isinstance(checkpoint, dict)  # or `contents_of` would have refused it
    others = {key: checkpoint[key] for key in contents.unexplained if key in checkpoint}
    published = {'meta': contents.meta, 'state_dict': contents.state, **others}
    return write_checkpoint(published, target, force, hashed=True), contents.dropped
