"""The hook that logs kernels and heat maps during a training."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from bnet_mm.analysis.heatmap import heat_maps
from bnet_mm.analysis.images import STRIDE, free_name, images_of, no_longer_than
from bnet_mm.analysis.layers import chosen_layers
from bnet_mm.analysis.learnt_kernels import learnt_kernels
from bnet_mm.analysis.runs import KERNEL_SCALARS
from bnet_mm.engine.data.samples import files_of
from bnet_mm.openmmlab.pictures import in_colours, preprocessed
from bnet_mm.openmmlab.running import input_channels
from bnet_mm.reports.maps import heat_map_row

OF_DATASET = 3  # images, where none are named
EVERY = 1000  # iterations, where a loop has no epochs


class BNETVisHook(Hook):
    """Logs the kernels' statistics and the heat maps of a few fixed images while a model trains.

    Off unless a config asks for it: `custom_hooks = [dict(type='BNETVisHook')]`. Everything goes to
    the backends of the config's visualizer, TensorBoard's for example: for each BNET the share of
    the kernels' energy outside the centre and their distance from Dirac, as in
    `bnet_mm.analysis.learnt_kernels`, and for each image a strip of the maps of
    `bnet_mm.analysis.heatmap`.

    It takes no random numbers and leaves the model as it was: the training is the same, bit for
    bit. A turn that would take it beyond its share of the time is left out; what a turn takes is
    tried before the training, and the statistics, which take little, are logged by themselves where
    there is no time for maps. A failure is logged, and the training goes on without the hook.

    Args:
        images: files of images or videos; by default the first three of the validation set, or
            of the training set where there is none.
        interval: iterations from one time to the next; by default an epoch, or 1000 iterations
            where the loop counts these.
        layers: names of the BNETs to draw; by default the last one of each stage.
        longest: pixels of the images' longer side.
        time_share: which share of the training's time it may take.

    Raises:
        InputError: at the start of the training, if the model has no BNET, an image cannot be
            read, or there is no map of the layers.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        images: Sequence[str] | None = None,
        interval: int | None = None,
        layers: Sequence[str] | None = None,
        longest: int = 320,
        time_share: float = 0.01,
    ):
        self.images, self.interval, self.layers = images, interval, layers
        self.longest, self.time_share = longest, time_share
        self._model: nn.Module | None = None

    def before_train(self, runner: Runner) -> None:
        self._budget = Budget(self.time_share)
        self._model = None
        if isinstance(runner.model, FullyShardedDataParallel):
            runner.logger.warning('BNETVisHook is left out: each process has a shard of a kernel')
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._names = chosen_layers(model, list(self.layers) if self.layers else None)
        if not is_main_process():
            return
        self._images = list(self._read_images(runner, input_channels(model)))
        with self._budget.spent_on('statistics'):
            self._statistics(model)
        with self._budget.spent_on('maps', len(self._images)):
            for name, image in self._images[:1]:
                self._strip(model, name, image)
        self._model = model

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        interval = self.interval
        if interval is None and isinstance(runner.train_loop, IterBasedTrainLoop):
            interval = EVERY
        if interval is not None and self.every_n_train_iters(runner, interval):
            self._log_in_time(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.interval is None and not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._log_in_time(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        if self._model is not None:
            runner.logger.info(f'BNETVisHook: {self._budget}')

    def _log_in_time(self, runner: Runner, step: int) -> None:
        if self._model is None:
            return
        try:
            if self._budget.allows('statistics'):
                with self._budget.spent_on('statistics'):
                    runner.visualizer.add_scalars(self._statistics(self._model), step)
            if self._budget.allows('maps'):
                with self._budget.spent_on('maps'):
                    for name, image in self._images:
                        strip = self._strip(self._model, name, image)
                        runner.visualizer.add_image(f'heatmap_{name}', strip, step)
        except Exception:  # whatever it is, it is not worth a training
            self._model = None
            runner.logger.exception('BNETVisHook failed, and the training goes on without it')

    def _statistics(self, model: nn.Module) -> dict[str, float]:
        scalars = {}
        for kernel in learnt_kernels(model):
            scalars[f'{KERNEL_SCALARS}{kernel.layer}/outside'] = kernel.outside
            scalars[f'{KERNEL_SCALARS}{kernel.layer}/distance'] = kernel.distance
        return scalars

    def _strip(self, model: nn.Module, name: str, image: np.ndarray) -> np.ndarray:
        """Returns an image and its heat maps side by side, `(H, W, 3)` bytes, RGB."""
        with _evaluating(model):
            [maps] = heat_maps(model, preprocessed(image, model), self._names)
        return np.hstack([panel for _, panel in heat_map_row(in_colours(image), maps).panels()])

    def _read_images(self, runner: Runner, channels: int) -> Iterator[tuple[str, np.ndarray]]:
        paths = self.images
        if paths is None:
            loop = runner.val_loop or runner.train_loop
            paths = files_of(loop.dataloader.dataset, OF_DATASET)
        used: set[str] = set()
        for path in paths:
            name, image = next(iter(images_of(Path(path), 1, channels)))
            yield free_name(name, used), no_longer_than(image, self.longest, STRIDE)


class Budget:
    """A share of the time that passes from now on, and what it is spent on.

    Args:
        share: of the time, that may be spent.
    """

    def __init__(self, share: float):
        self.share = share
        self._started = time.perf_counter()
        self._spent = 0.0
        self._cost: dict[str, float] = {}
        self._times: Counter[str] = Counter()

    def __str__(self) -> str:
        passed = time.perf_counter() - self._started
        times = ', '.join(f'{what} {self._times[what] - 1} times' for what in self._cost)
        return f'{times}, in {100 * self._spent / passed:.2f} % of the time of this training'

    def allows(self, what: str) -> bool:
        """Tells whether one more time of `what`, at its last cost, stays within the share."""
        passed = time.perf_counter() - self._started
        return self._spent + self._cost[what] <= self.share * passed

    @contextmanager
    def spent_on(self, what: str, times: int = 1) -> Iterator[None]:
        """Counts the time spent in the block, of which the next one will take `times` as much."""
        started = time.perf_counter()
        yield
        cost = time.perf_counter() - started
        self._spent += cost
        self._cost[what] = times * cost
        self._times[what] += 1


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode, and each module back into its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
