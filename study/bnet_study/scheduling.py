"""Runs what is missing of a plan, several runs side by side, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bnet_study.plan import Plan, Run
from bnet_study.starts import WEIGHTS

OUTPUT = 'output.txt'  # in a run's folder: all that it printed

POLL = 0.5  # seconds


def folder_of(work: Path, run: Run) -> Path:
    """Returns the folder of a run's state, weights and output."""
    return work / f'{run.name}-{run.config_hash}'


def missing_runs(
    plan: Plan, runs: Iterable[Run], done: set[tuple[str, int]], work: Path
) -> list[Run]:
    """Returns what is to be run, in order; before a run the one whose weights it starts from.

    Args:
        plan: that of the runs.
        runs: those that are wanted.
        done: configuration and seed of those that there is a result of.
        work: the folder of weights. A run with a result but without weights is run again where
            another starts from it.
    """
    missing: dict[tuple[str, int], Run] = {}
    for run in runs:
        if (run.config_hash, run.seed) in done:
            continue
        source = plan.source_of(run)
        if source is not None and not (folder_of(work, source) / WEIGHTS).is_file():
            missing.setdefault((source.config_hash, source.seed), source)
        missing.setdefault((run.config_hash, run.seed), run)
    return list(missing.values())


@dataclass
class Jobs:
    """Processes side by side.

    Attributes:
        command: makes the command line of a run.
        number: how many at once.
        environment: variables of their own.
        deadline: `time.time()` at which all end; they go on from their last epoch next time.
        work: the folder of the runs' own, in which their output is kept.
    """

    command: Callable[[Run], Sequence[str]]
    number: int
    environment: dict[str, str]
    deadline: float
    work: Path
    running: dict[str, tuple[Run, subprocess.Popen, float]] = field(default_factory=dict)
    failed: list[Run] = field(default_factory=list)

    def all(self, runs: Sequence[Run], ready: Callable[[Run], bool]) -> bool:
        """Runs `runs` in order, each once `ready` says so.

        Returns:
            whether all were run and none failed.
        """
        waiting = list(runs)
        try:
            while waiting or self.running:
                if time.time() >= self.deadline:
                    print(f'The time is over: {len(self.running)} runs stop, {len(waiting)} wait.')
                    return False
                self._collect()
                for run in [*waiting]:
                    if len(self.running) == self.number:
                        break
                    if ready(run):
                        waiting.remove(run)
                        self._start(run)
                if waiting and not self.running and not any(map(ready, waiting)):
                    print(f'{len(waiting)} runs start from weights of runs that failed.')
                    return False
                time.sleep(POLL)
            return not self.failed
        finally:
            self._stop()

    def _start(self, run: Run) -> None:
        output = folder_of(self.work, run) / OUTPUT
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open('a') as stream:
            process = subprocess.Popen(
                self.command(run),
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        self.running[run.name] = run, process, time.time()
        print(f'{time.strftime("%H:%M:%S")} starts {run.name}', flush=True)

    def _collect(self) -> None:
        for name, (run, process, begun) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            took = f'after {time.time() - begun:.0f} s'
            if process.returncode:
                self.failed.append(run)
                output = folder_of(self.work, run) / OUTPUT
                last = (output.read_text(errors='replace').splitlines() or [''])[-1]
                print(
                    f'{time.strftime("%H:%M:%S")} FAILED {name} {took}: {last} ({output})',
                    flush=True,
                )
            else:
                print(f'{time.strftime("%H:%M:%S")} ended {name} {took}', flush=True)

    def _stop(self) -> None:
        for _, process, _ in self.running.values():
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        for _, process, _ in self.running.values():
            process.wait()
