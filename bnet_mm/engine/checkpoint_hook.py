"""mmengine's CheckpointHook, which keeps the old checkpoint until the new one is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend
from mmengine.fileio.backends import backends
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from bnet_mm.checkpoint.atomic import write_whole

BACKEND = 'bnet_mm_whole'  # in mmengine's `backend_args`


class WholeFileBackend(LocalBackend):
    """mmengine's local file backend that writes beside the target and then renames."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes `obj` to `filepath`; a reader sees the old file or the whole new one."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: part.write_bytes(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes the text `obj` to `filepath`; a reader sees the old file or the whole new one."""
        self.put(obj.encode(encoding), filepath)


class WholeCheckpointHook(CheckpointHook):
    """Removes outdated checkpoints after saving, where mmengine 0.10.7 does so before.

    With `max_keep_ckpts=1`, a job that was killed between the two lost all of its checkpoints. And
    in a copy of a work dir, the best checkpoint of the original is not removed for a better one.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[key] = path and self._own(path)

    def _own(self, path: str) -> str | None:
        """Returns where this run has a file that a checkpoint names, which may be another's."""
        own = self.file_backend.join_path(self.out_dir, Path(path).name)
        return own if self.file_backend.exists(own) else None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._removals_last():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._removals_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removals_last(self) -> Iterator[None]:
        backend, removals = self.file_backend, []
        self.file_backend = _Postponing(backend, removals)
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        written = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        for remove, path in removals:
            if path not in written:
                remove(path)


class _Postponing:
    """A file backend that records removals for later."""

    def __init__(self, backend: BaseStorageBackend, removals: list):
        self._backend, self._removals = backend, removals

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._removals.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self._removals.append((self._backend.rmtree, path))


if BACKEND not in backends:
    register_backend(BACKEND, WholeFileBackend)
