"""Shows during a training what the kernels learn and where they enhance."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from bnet_mm.analysis.heatmap import heat_maps
from bnet_mm.analysis.heatmap_sheets import heat_map_row
from bnet_mm.analysis.layers import chosen_layers
from bnet_mm.analysis.learnt_kernels import learnt_kernels
from bnet_mm.analysis.overlays import panels_of
from bnet_mm.analysis.pictures import no_longer_than, pictures_of
from bnet_mm.analysis.runs import KERNEL_SCALARS
from bnet_mm.deploy.sample import as_input
from bnet_mm.engine.data.building import files_of

OF_DATASET = 3  # pictures, where none are named
EVERY = 1000  # iterations, where a loop has no epochs


@HOOKS.register_module()
class BNETVisHook(Hook):
    """Logs the kernels' statistics and the heat maps of a few fixed pictures while a model trains.

    Off unless a config asks for it: `custom_hooks = [dict(type='BNETVisHook')]`. Everything goes to
    the backends of the config's visualizer, TensorBoard's for example: for each BNET the share of
    the kernels' energy outside the centre and their distance from Dirac, as in
    `bnet_mm.analysis.learnt_kernels`, and for each picture a strip of the maps of
    `bnet_mm.analysis.heatmap`.

    It takes no random numbers and leaves the model as it was: the training is the same, bit for
    bit. After the first turn it leaves those out that would take it beyond its share of the time,
    and at the end it logs which share it took.

    Args:
        images: files of pictures or videos; by default the first three of the validation set, or
            of the training set where there is none.
        interval: iterations from one time to the next; by default an epoch, or 1000 iterations
            where the loop counts these.
        layers: names of the BNETs to draw; by default the last one of each stage.
        longest: pixels of the pictures' longer side.
        time_share: which share of the training's time it may take.

    Raises:
        InputError: at the start of the training, if the model has no BNET or a picture cannot be
            read.
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
        self._started, self._spent, self._last = time.perf_counter(), 0.0, 0.0
        self._turns = 0
        self._model = None
        if isinstance(runner.model, FullyShardedDataParallel):
            runner.logger.warning('BNETVisHook is left out: each process has a shard of a kernel')
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._names = chosen_layers(model, list(self.layers) if self.layers else None)
        if is_main_process():
            self._pictures = list(self._read_pictures(runner))
            self._model = model

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        interval = self.interval
        if interval is None and isinstance(runner.train_loop, IterBasedTrainLoop):
            interval = EVERY
        if interval is not None and self.every_n_train_iters(runner, interval):
            self._log_in_time(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.interval is None and not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._log_in_time(runner)

    def after_train(self, runner: Runner) -> None:
        if self._model is None:
            return
        passed = time.perf_counter() - self._started
        runner.logger.info(
            f'BNETVisHook logged {self._turns} times, in {self._spent:.1f} s, '
            f'{100 * self._spent / passed:.2f} % of the time of this training'
        )

    def _log_in_time(self, runner: Runner) -> None:
        if self._model is None:
            return
        now = time.perf_counter()
        if self._spent + self._last > self.time_share * (now - self._started):
            return
        self._log(runner, runner.iter + (self.interval is not None))
        self._last = time.perf_counter() - now
        self._spent += self._last
        self._turns += 1

    def _log(self, runner: Runner, step: int) -> None:
        scalars = {}
        for kernel in learnt_kernels(self._model):
            scalars[f'{KERNEL_SCALARS}{kernel.layer}/outside'] = kernel.outside
            scalars[f'{KERNEL_SCALARS}{kernel.layer}/distance'] = kernel.distance
        runner.visualizer.add_scalars(scalars, step)
        with _evaluating(self._model):
            for name, picture in self._pictures:
                [maps] = heat_maps(self._model, as_input(picture, self._model), self._names)
                strip = np.hstack([p for _, p in panels_of(heat_map_row(picture, maps))])
                runner.visualizer.add_image(f'heatmap_{name}', strip, step)

    def _read_pictures(self, runner: Runner) -> Iterator[tuple[str, np.ndarray]]:
        paths = self.images
        if paths is None:
            loop = runner.val_loop or runner.train_loop
            paths = files_of(loop.dataloader.dataset, OF_DATASET)
        for path in paths:
            name, picture = next(iter(pictures_of(Path(path), 1)))
            yield name, no_longer_than(picture, self.longest)


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
