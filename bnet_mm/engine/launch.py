"""Runs a training or a test from its config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Callable
from urllib.error import URLError

import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from bnet_mm.checkpoint import latest_checkpoint
from bnet_mm.engine.additions import add_to_config
from bnet_mm.engine.data.failures import explain_failure, explained
from bnet_mm.engine.data.files import datasets
from bnet_mm.engine.inputs import check_inputs, weight_sources
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import config_errors


def train(cfg: Config, resume: str | None = None) -> Runner:
    """Trains as `cfg` says and returns the runner.

    Args:
        cfg: a whole config, from `bnet_mm.engine.config.load_config`.
        resume: a checkpoint to resume from, or 'auto' for the last one in the work dir; where
            there is none, the training starts.

    Raises:
        InputError: something that the run needs is missing or wrong.
    """
    _set_resume(cfg, resume)
    check_inputs(cfg, ('train', 'val') if cfg.get('val_cfg') else ('train',))
    weights = {
        source: '--resume FILE' if where == 'resume' else f'--cfg-options {where}=FILE'
        for where, source in weight_sources(cfg)
    }
    with _input_errors(cfg, weights):
        add_to_config(cfg)
        runner = _build_runner(cfg)
        runner.train()
    return runner


def test(
    cfg: Config,
    checkpoint: str | None,
    out: str | None = None,
    tta: bool = False,
    prepare: Callable[[nn.Module], None] | None = None,
) -> dict:
    """Evaluates a checkpoint on the test set of `cfg` and returns the metrics.

    Args:
        cfg: a whole config, from `bnet_mm.engine.config.load_config`.
        checkpoint: file or URL of the weights; None for those that `prepare` brings.
        out: a `.pkl` file for the predictions.
        tta: test with the config's `tta_model` and `tta_pipeline`, or mmdet's flip.
        prepare: what is done to the model once it has its weights.

    Raises:
        InputError: something that the run needs is missing or wrong.
    """
    if out is not None and not out.endswith(('.pkl', '.pickle')):
        raise InputError(f'--out {out}: predictions are pickled, name a .pkl file')
    cfg.load_from = checkpoint
    cfg.resume = False
    check_inputs(cfg, ('test',))
    if out is not None:
        make_folder(Path(out).parent, f'--out {out}: its folder')
    if tta:
        _set_tta(cfg)
    weights = {} if checkpoint is None else {checkpoint: 'the argument CHECKPOINT'}
    with _input_errors(cfg, weights):
        add_to_config(cfg, training=False)
        runner = _build_runner(cfg)
        if out is not None:
            runner.test_evaluator.metrics.append(_dump_results(cfg, out))
        if prepare is not None:
            runner.register_hook(_Prepare(prepare), priority='LOWEST')
        return runner.test()


class _Prepare(Hook):
    """Changes the model after the weights are loaded, and the other hooks have seen them."""

    def __init__(self, prepare: Callable[[nn.Module], None]):
        self.prepare = prepare

    def before_test(self, runner: Runner) -> None:
        self.prepare(runner.model.module if is_model_wrapper(runner.model) else runner.model)


def make_folder(path: str | Path, what: str) -> None:
    """Makes a folder with its parents.

    Raises:
        InputError: it cannot be made; `what` names it in the sentence.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'{what} cannot be made: {error}') from error


def _build_runner(cfg: Config) -> Runner:
    make_folder(cfg.work_dir, f'the work dir {cfg.work_dir}')
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is None and cfg.get('resume') and not cfg.get('load_from'):
        resume = 'auto'  # the config asks for it
    found = latest_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    if found is not None:
        cfg.resume, cfg.load_from = True, str(found)
    elif resume == 'auto':
        cfg.resume = False
        print_log(f'nothing to resume in {cfg.work_dir}; the training starts', logger='current')


def _set_tta(cfg: Config) -> None:
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        if cfg.get('default_scope') != 'mmdet':
            raise InputError('--tta needs tta_model and tta_pipeline in the config')
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
        dataset, _ = next(datasets(cfg, 'test'))
        cfg.tta_pipeline = deepcopy(dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        pack = deepcopy(cfg.tta_pipeline[-1])
        pack['meta_keys'] = (*pack['meta_keys'], 'flip', 'flip_direction')
        cfg.tta_pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pack]])
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def _dump_results(cfg: Config, out: str) -> DumpResults:
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # encodes masks

        return DumpDetResults(out_file_path=out)
    return DumpResults(out_file_path=out)


@contextmanager
def _input_errors(cfg: Config, weights: dict[str, str]) -> Iterator[None]:
    """Raises InputError for failures inside a run that the input has caused.

    Args:
        cfg: the config of the run.
        weights: files and URLs in the order of loading, each with the option that names another.
    """
    try:
        with config_errors():
            yield
    except InputError:
        raise
    except URLError as error:
        downloads = Path(torch.hub.get_dir()) / 'checkpoints'
        missing = [
            url for url in weights if '://' in url and not (downloads / Path(url).name).is_file()
        ]
        if missing:
            raise InputError(
                f'{missing[0]} could not be downloaded ({error}): connect this machine, put the '
                f'file into {downloads}, or name another with {weights[missing[0]]}'
            ) from error
        raise InputError(
            f'a dataset or a file that the config names could not be downloaded ({error}): connect '
            f'this machine, or put it where the config looks for it; CIFAR-10 also comes as '
            f'folders train and test in data_root, with a folder for each class'
        ) from error
    except Exception as error:
        sentence = explain_failure(cfg, error)
        if sentence is None:
            raise
        raise explained(error, sentence) from error
