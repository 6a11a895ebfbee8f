"""mmengine's CheckpointHook, which keeps the old checkpoint until the new one is written."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module(force=True)
class CheckpointHook(_CheckpointHook):
    """Removes outdated checkpoints after saving, where mmengine 0.10.7 does so before.

    With `max_keep_ckpts=1`, a job that was killed between the two lost all of its checkpoints.
    """

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
