"""Runs what is missing of a plan of the study (study/README.md).

study/run.py study/plan.yaml --minutes 12
study/run.py study/plan.yaml --only 'imagenette112 resnet26 bnet3 0' --again --out mine
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from math import inf
from pathlib import Path
from types import FrameType

import torch

from bnet_mm.benchmark.machine import describe
from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.engine.command_line import parsed, positive
from bnet_mm.errors import InputError
from bnet_study.classification import train_classifier
from bnet_study.images import read_images
from bnet_study.plan import Plan, Run, read_plan
from bnet_study.records import append, read_records, record_of
from bnet_study.scheduling import OUTPUT, Jobs, folder_of, missing_runs
from bnet_study.starts import WEIGHTS
from bnet_study.times import time_steps

HERE = Path(__file__).resolve().parent
RESULTS, TIMES = 'runs.jsonl', 'times.json'
SIDE_BY_SIDE = 4  # small runs on a GPU


def main() -> None:
    parser = argparse.ArgumentParser(description='Run what is missing of a plan.')
    parser.add_argument('plan', type=Path, metavar='PLAN', help='a file like study/plan.yaml')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='(default: a GPU, if there is)')
    parser.add_argument(
        '--minutes', type=float, help='stop after this time; what runs goes on next'
    )
    parser.add_argument('--jobs', type=positive, help='runs side by side (default: cores, or 4)')
    parser.add_argument('--only', metavar='WORDS', help='runs of whose name each word is a part')
    parser.add_argument('--again', action='store_true', help='also what has a result')
    parser.add_argument('--list', action='store_true', help='print the plan, and run nothing')
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path(os.environ.get('BNET_DATA') or 'data'),
        help='folder of the data (default: the variable BNET_DATA, or data)',
    )
    parser.add_argument(
        '--data',
        type=_named,
        action='append',
        default=[],
        metavar='NAME=PATH',
        help="other data in the place of the plan's",
    )
    parser.add_argument('--out', type=Path, default=HERE / 'results', help='folder of the results')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/study'), help='folder of weights and state'
    )
    parser.add_argument(
        '--times',
        type=positive,
        nargs='?',
        const=15,
        metavar='ROUNDS',
        help="only time a training step of each arm, into OUT/times.json (for 'wide', 'longer')",
    )
    parser.add_argument('--worker', metavar='NAME', help=argparse.SUPPRESS)
    with parsed(parser) as args:
        args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
        if args.device == 'cuda' and not torch.cuda.is_available():
            raise InputError('--device cuda: torch finds no GPU here')
        plan = read_plan(args.plan, dict(args.data))
        if args.worker:
            work_on(plan, args)
        elif args.times:
            write_times(plan, args)
        elif not run_missing(plan, args):
            sys.exit(1)


def run_missing(plan: Plan, args: argparse.Namespace) -> bool:
    """Runs what is missing, and returns whether nothing is any more."""
    words = set((args.only or '').split())
    wanted = [r for r in plan.runs if words <= set(re.split(r'[.-]', r.name))]
    if not wanted:
        raise InputError(
            f'--only {args.only}: no run of {args.plan} has all these words in its name'
        )
    results = args.out / RESULTS
    records = read_records([results]) if results.is_file() else []
    done = {(record['config_hash'], record['seed']) for record in records}
    runs = missing_runs(plan, wanted, set() if args.again else done, args.work_dir)
    if args.list:
        for run in wanted:
            print('done   ' if (run.config_hash, run.seed) in done else 'missing', run.name)
        return True
    begun = time.time()
    for run in runs:  # decoded once, before many would do it at the same time
        if run.kind == 'classification':
            images_of(run, args)
    print(f'{len(runs)} of {len(wanted)} runs are missing.', flush=True)
    jobs = args.jobs or (SIDE_BY_SIDE if args.device == 'cuda' else os.cpu_count() or 1)

    # Threads of two processes that together are more than the cores wait for one another.
    threads = os.environ.get('OMP_NUM_THREADS') or str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {'OMP_NUM_THREADS': threads}
    if args.device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''  # mmengine takes a GPU where there is one

    def command(run: Run) -> list[str]:
        options = ['--device', args.device, '--data-root', args.data_root, '--out', args.out]
        options += ['--work-dir', args.work_dir, '--worker', f'{run.name}-{run.config_hash}']
        options += [option for pair in args.data for option in ('--data', '='.join(pair))]
        return [sys.executable, __file__, str(args.plan), *map(str, options)]

    def ready(run: Run) -> bool:
        source = plan.source_of(run)
        return source is None or (folder_of(args.work_dir, source) / WEIGHTS).is_file()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)  # the processes of the runs end, too
    return Jobs(
        command,
        jobs,
        environment,
        inf if args.minutes is None else begun + 60 * args.minutes,
        args.work_dir,
    ).all(runs, ready)


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition('=')
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f'{text} is not NAME=PATH')
    return name, path


def _interrupt(number: int, frame: FrameType | None) -> None:
    sys.exit('Stopped; the same command goes on from the last whole epochs.')


def write_times(plan: Plan, args: argparse.Namespace) -> None:
    """Times training steps and writes them beside the results."""
    steps = time_steps(plan, torch.device(args.device), args.times)
    about = {**describe(args.device), 'rounds': args.times}
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({'machine': about, 'steps': steps}, indent=1)
    write_whole(args.out / TIMES, lambda part: part.write_text(text + '\n'))
    for step in steps:
        print('{task} {net} {arm}: {seconds:.3f} s, {ratio:.3f} of bn'.format(**step))


def images_of(run: Run, args: argparse.Namespace):
    """Reads the photos of a run."""
    source = args.data_root / run.config['data']
    return read_images(source, run.config['task']['size'], args.work_dir / 'images')


def work_on(plan: Plan, args: argparse.Namespace) -> None:
    """Does one run, to its end, and writes its line."""
    candidates = [*plan.runs, *filter(None, map(plan.source_of, plan.runs))]
    run = next(r for r in candidates if f'{r.name}-{r.config_hash}' == args.worker)
    folder = folder_of(args.work_dir, run)
    folder.mkdir(parents=True, exist_ok=True)
    source = plan.source_of(run)
    weights = None if source is None else folder_of(args.work_dir, source) / WEIGHTS
    if 'file' in run.config['start']:
        weights = args.data_root / run.config['start']['file']
    device = torch.device(args.device)
    if run.kind == 'classification':
        found = train_classifier(run, images_of(run, args), weights, folder, device)
    else:
        from bnet_study.dense import train_dense  # takes seconds to import

        found = train_dense(run, args.data_root / run.config['data'], weights, folder, device)
    # What libraries print besides names files of this machine.
    lines = (folder / OUTPUT).read_text(errors='replace').splitlines(keepends=True)
    log = args.out / 'logs' / f'{run.name}.txt'
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as stream:
        stream.writelines(line for line in lines if line.startswith(run.name))
    append(args.out / RESULTS, record_of(run, args.device, **found))


if __name__ == '__main__':
    main()
