"""Looks at the data of a run before its first step: classes, annotation files, samples."""

from __future__ import annotations

import time
from datetime import timedelta

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from bnet_mm.engine.data.annotations import explain_annotations, look_at_annotations
from bnet_mm.engine.data.classes import class_findings
from bnet_mm.engine.data.files import explain_lists
from bnet_mm.engine.data.samples import Finding, leaves, look
from bnet_mm.errors import InputError

# For all datasets together. A sample that was not opened is named when it fails.
SECONDS = 8.0


class DatasetCheckHook(Hook):
    """Warns before the first step of what is odd about the data.

    One process looks, for at most `SECONDS`, and tells the others. What a library trains is not
    refused: only an empty dataset, and a sample that cannot be loaded where each is used, end the
    run at once and not after hours.

    Raises:
        InputError: of these two.
    """

    priority = 'HIGH'

    def before_train(self, runner: Runner) -> None:
        dataset = runner.train_loop.dataloader.dataset
        if hasattr(dataset, '__len__') and len(dataset) == 0:
            raise InputError(explain_annotations(runner.cfg, empty=True))
        built = {'train': dataset}
        if runner.val_loop is not None:
            built['val'] = runner.val_loop.dataloader.dataset
        _say(runner, built)

    def before_test(self, runner: Runner) -> None:
        _say(runner, {'test': runner.test_loop.dataloader.dataset})


def _say(runner: Runner, built: dict[str, object]) -> None:
    shared: list = [_findings(runner, built) if is_main_process() else None]
    broadcast_object_list(shared)
    findings: list[Finding] = shared[0]
    for finding in findings:
        if finding.ends_run and _uses_all(runner, finding.stage):
            raise InputError(finding.text)
    for finding in findings:
        runner.logger.warning(finding.text)


def _findings(runner: Runner, built: dict[str, object]) -> list[Finding]:
    end = time.monotonic() + _seconds(runner)
    try:
        found = [Finding(text, 'train') for text in class_findings(runner.cfg, built)]
        found += look_at_annotations(runner.cfg, tuple(built), (end - time.monotonic()) / 2)
        for stage in built:
            now = time.monotonic()
            problem = explain_lists(runner.cfg, stage, now + max(0.0, end - now) / 4)
            found += [Finding(problem, stage)] if problem else []
        samples = [(stage, leaf) for stage, whole in built.items() for leaf in leaves(whole)]
        found += look(samples, max(0.0, end - time.monotonic()))
    except Exception as error:  # whatever it meets: the run itself may do very well
        kind = type(error).__name__
        return [Finding(f'the data could not be looked at ({kind}: {error})', 'train')]
    return found


def _seconds(runner: Runner) -> float:
    """Returns the time limit: less where other processes would give up waiting."""
    timeout = ((runner.cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    if isinstance(timeout, timedelta):
        timeout = timeout.total_seconds()
    return min(SECONDS, timeout / 3) if isinstance(timeout, (int, float)) else SECONDS


def _uses_all(runner: Runner, stage: str) -> bool:
    """Tells whether a run certainly comes to each sample of a stage."""
    if stage == 'test':
        return True
    loop = runner.train_loop
    if stage == 'train':
        return isinstance(loop, EpochBasedTrainLoop)
    last = getattr(
        loop, '_max_epochs' if isinstance(loop, EpochBasedTrainLoop) else '_max_iters', 0
    )
    begin, interval = getattr(loop, 'val_begin', 1), getattr(loop, 'val_interval', 1)
    return begin <= last and interval <= last
