"""Makes every step's random numbers a function of the seed and the step alone."""

import random
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner


class RepeatableHook(Hook):
    """Lets a resumed training end with the weights of one that was never interrupted.

    mmengine resumes weights, optimizer and schedules, not the state of the random generators, and
    that state cannot simply be saved: data workers hold a part of it, and validation moves it. So
    nothing depends on it here: before each step the generators of this process start from
    (seed, rank, step), and the data's from (seed, rank, epoch). With an iteration-based loop
    mmengine itself replays the batches that were seen.

    The numbers are those of a fresh seed at each step, neither more nor less random than one long
    sequence. Validation and testing are not touched.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        # Without workers the pictures are loaded in this process, between the steps.
        if isinstance(loop, IterBasedTrainLoop) and loop.dataloader.num_workers == 0:
            loop.dataloader_iterator = _Seeded(loop.dataloader_iterator, runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            return
        seed = _number(runner.seed, 'data', loop.epoch)
        _start_generators(seed)
        loader = loop.dataloader
        if loader.num_workers > 0:
            loader.worker_init_fn = partial(
                worker_init_fn,
                num_workers=loader.num_workers,
                rank=get_rank(),
                seed=seed,
                disable_subprocess_warning=True,
            )
            # Workers that persist would go on with the generators of the epoch before, which a
            # resumed run does not have; without an iterator the loader starts new ones.
            loader._iterator = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        _start_generators(_number(runner.seed, 'step', runner.iter))


def _number(seed: int, purpose: str, count: int) -> int:
    """Returns 31 well mixed bits for one use of the generators."""
    key = (seed, get_rank(), {'data': 0, 'step': 1}[purpose], count)
    return int(np.random.SeedSequence(key).generate_state(1)[0]) >> 1


def _start_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class _Seeded:
    """Batches, before each of which the generators are started."""

    def __init__(self, batches: Iterator, seed: int):
        self._batches, self._seed, self._count = batches, seed, 0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        _start_generators(_number(self._seed, 'data', self._count))
        self._count += 1
        return next(self._batches)

    def skip_iter(self, count: int) -> None:
        """Leaves out `count` batches, as the fork onedl-mmengine asks for on resuming."""
        self._batches.skip_iter(count)
        self._count += count
