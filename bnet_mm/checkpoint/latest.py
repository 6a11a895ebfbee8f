"""Finds the checkpoint that an interrupted training goes on from."""

from pathlib import Path

from bnet_mm.checkpoint.reading import read_checkpoint
from bnet_mm.errors import InputError


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Returns the last whole checkpoint that mmengine's CheckpointHook wrote, or None.

    That is the one which `last_checkpoint` names. A job can die while it writes that note or the
    file it names; then it is the newest `epoch_*.pth` or `iter_*.pth` that can be read.
    """
    work_dir = Path(work_dir)
    note = work_dir / 'last_checkpoint'
    named = note.read_text().strip() if note.is_file() else ''
    written = sorted(
        [*work_dir.glob('epoch_*.pth'), *work_dir.glob('iter_*.pth')],
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    # The note holds the path as the job saw it; the work dir may have moved since.
    candidates = [Path(named), work_dir / Path(named).name, *written] if named else written
    for path in candidates:
        try:
            checkpoint = read_checkpoint(path)
        except InputError:
            continue
        if is_of_training(checkpoint):
            return path
    return None


def is_of_training(checkpoint: object) -> bool:
    """Returns whether a training can go on from what was read: weights alone are not enough."""
    return isinstance(checkpoint, dict) and {'optimizer', 'meta'} <= checkpoint.keys()
