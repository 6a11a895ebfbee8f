"""Makes the random numbers of every step a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import RawValue

import numpy as np
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed
from torch.utils.data import IterableDataset, get_worker_info

DATA, STEP = 0, 1  # what a seed is for


class RepeatableHook(Hook):
    """Lets a resumed training end with the weights of one that was never interrupted.

    mmengine resumes weights, optimizer and schedules, but not the state of the random generators.
    That state cannot simply be saved: data workers hold a part of it, and validation changes it. So
    the generators are seeded anew: those of this process before each step with (seed, rank, step),
    those of the data with (seed, rank, epoch). An iteration-based loop replays the batches before
    the checkpoint itself. Validation and testing are as in mmengine.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        # Without workers the samples are loaded in this process, between the steps.
        if isinstance(loop, IterBasedTrainLoop) and loop.dataloader.num_workers == 0:
            loop.dataloader_iterator = _Seeded(loop.dataloader_iterator, runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            return
        seed = _seed(runner.seed, DATA, loop.epoch)
        set_random_seed(seed)
        loader = loop.dataloader
        if loader.num_workers > 0:
            if not isinstance(loader.worker_init_fn, _SeededWorker):
                loader.worker_init_fn = _SeededWorker(loader.worker_init_fn, loader.num_workers)
            loader.worker_init_fn.seed.value = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        set_random_seed(_seed(runner.seed, STEP, runner.iter))


class _SeededWorker:
    """Calls the config's own `worker_init_fn`, and seeds the worker in each epoch.

    Workers that persist are not told of an epoch: each looks at a number in shared memory before a
    sample, and seeds its generators where it has changed.
    """

    def __init__(self, own: Callable[[int], object] | None, workers: int):
        self.own, self.workers, self.rank = own, workers, get_rank()
        self.seed = RawValue('q', 0)

    def __call__(self, worker_id: int) -> None:
        if self.own is not None:
            self.own(worker_id)
        dataset = get_worker_info().dataset
        if isinstance(dataset, IterableDataset):
            self.start(worker_id)
            return
        own = type(dataset)
        seeded = None

        def getitem(dataset: object, index: int) -> object:
            nonlocal seeded
            if self.seed.value != seeded:
                seeded = self.seed.value
                self.start(worker_id)
            return own.__getitem__(dataset, index)

        # In the worker alone, whose copy of the dataset it is.
        dataset.__class__ = type(own.__name__, (own,), dict(__getitem__=getitem))

    def start(self, worker_id: int) -> None:
        """Seeds the generators of a worker for an epoch."""
        worker_init_fn(
            worker_id, self.workers, self.rank, self.seed.value, disable_subprocess_warning=True
        )


def _seed(seed: int, purpose: int, count: int) -> int:
    """Returns 31 well mixed bits."""
    key = (seed, get_rank(), purpose, count)
    return int(np.random.SeedSequence(key).generate_state(1)[0]) >> 1


class _Seeded:
    """An iterator over batches that seeds the generators before each."""

    def __init__(self, batches: Iterator, seed: int):
        self._batches, self._seed, self._count = batches, seed, 0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        set_random_seed(_seed(self._seed, DATA, self._count))
        self._count += 1
        return next(self._batches)

    def skip_iter(self, count: int) -> None:
        """Skips `count` batches, as the fork onedl-mmengine does when it resumes."""
        self._batches.skip_iter(count)
        self._count += count
