"""Trains, evaluates and shows a small BNET detector: what `make demo` runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bnet_mm.demo.job import run_demo
from bnet_mm.engine.command_line import parsed


def main() -> None:
    parser = argparse.ArgumentParser(description='Train, evaluate and show a small detector.')
    parser.add_argument('--work-dir', default='work_dirs/demo')
    with parsed(parser) as args:
        run_demo(Path(__file__).resolve().parent.parent, args.work_dir)


if __name__ == '__main__':
    main()
