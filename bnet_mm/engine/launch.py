"""Runs a training or a test from its config."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from urllib.error import URLError

import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from bnet_mm.checkpoint import latest_checkpoint
from bnet_mm.engine import checkpoint_hook  # noqa: F401  (takes the place of mmengine's)
from bnet_mm.engine.data import DatasetCheckHook, explain_failure
from bnet_mm.engine.inputs import check_inputs
from bnet_mm.engine.repeatable import RepeatableHook
from bnet_mm.engine.start_report import StartReportHook
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.config import pretrained_sources
from bnet_mm.openmmlab.libraries import config_errors


def train(cfg: Config, resume: str | None = None) -> Runner:
    """Trains as `cfg` says and returns the runner.

    Args:
        cfg: a whole config; see `bnet_mm.engine.config`.
        resume: a checkpoint to go on from, or 'auto' for the last one in the work dir, or the
            start where there is none.

    Raises:
        InputError: something that the run needs is missing or wrong.
    """
    _set_resume(cfg, resume)
    check_inputs(cfg, ('train', 'val') if cfg.get('val_cfg') else ('train',))
    weights = {
        source: f'--cfg-options {where}=FILE'
        for where, source in pretrained_sources(cfg.get('model'))
    }
    if cfg.get('load_from'):
        weights[cfg.load_from] = (
            '--resume FILE' if cfg.get('resume') else '--cfg-options load_from=FILE'
        )
    with _input_errors(cfg, weights):
        runner = _build_runner(cfg)
        for hook in (DatasetCheckHook(), RepeatableHook(), StartReportHook()):
            runner.register_hook(hook)
        runner.train()
    return runner


def test(cfg: Config, checkpoint: str, out: str | None = None, tta: bool = False) -> dict:
    """Evaluates a checkpoint on the test set of `cfg` and returns the metrics.

    Args:
        cfg: a whole config; see `bnet_mm.engine.config`.
        checkpoint: file or URL of the weights.
        out: a `.pkl` file for the predictions.
        tta: test with the config's `tta_model` and `tta_pipeline`, or mmdet's flip.

    Raises:
        InputError: something that the run needs is missing or wrong.
    """
    if out is not None and not out.endswith(('.pkl', '.pickle')):
        raise InputError(f'--out {out}: predictions are pickled, name a .pkl file')
    cfg.load_from = checkpoint
    cfg.resume = False
    check_inputs(cfg, ('test',))
    if out is not None:
        try:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f'--out {out}: its folder cannot be made: {error}') from error
    if tta:
        _set_tta(cfg)
    with _input_errors(cfg, {checkpoint: 'the argument CHECKPOINT'}):
        runner = _build_runner(cfg)
        runner.register_hook(DatasetCheckHook())
        if out is not None:
            runner.test_evaluator.metrics.append(_dump_results(cfg, out))
        return runner.test()


def _build_runner(cfg: Config) -> Runner:
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'the work dir {cfg.work_dir} cannot be made: {error}') from error
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is None and cfg.get('resume') and not cfg.get('load_from'):
        resume = 'auto'  # as the config itself says
    if resume is None:
        return
    if resume != 'auto':
        cfg.resume, cfg.load_from = True, resume
        return
    found = latest_checkpoint(cfg.work_dir)
    if found is None:
        cfg.resume = False
        print_log(f'nothing to resume in {cfg.work_dir}; the training starts', logger='current')
    else:
        cfg.resume, cfg.load_from = True, str(found)


def _set_tta(cfg: Config) -> None:
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        if cfg.get('default_scope') != 'mmdet':
            raise InputError('--tta needs tta_model and tta_pipeline in the config')
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
        dataset = cfg.test_dataloader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        cfg.tta_pipeline = deepcopy(dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        pack = deepcopy(cfg.tta_pipeline[-1])
        pack['meta_keys'] = (*pack['meta_keys'], 'flip', 'flip_direction')
        cfg.tta_pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pack]])
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def _dump_results(cfg: Config, out: str) -> DumpResults:
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults  # the one that packs masks

        return DumpDetResults(out_file_path=out)
    return DumpResults(out_file_path=out)


@contextmanager
def _input_errors(cfg: Config, weights: dict[str, str]) -> Iterator[None]:
    """Turns those failures inside a run that have a cause in the input into one sentence.

    Args:
        cfg: the config of the run.
        weights: files and URLs in the order in which the run loads them, each with the way to name
            another.
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
        if not missing:
            raise InputError(
                f'a dataset or a file that the config names could not be downloaded ({error}): '
                f'connect this machine, or put it where the config looks for it; CIFAR-10 also '
                f'comes as folders train and test in data_root, with a folder for each class'
            ) from error
        raise InputError(
            f'{missing[0]} could not be downloaded ({error}): connect this machine, put the file '
            f'into {downloads}, or name another with {weights[missing[0]]}'
        ) from error
    except Exception as error:
        sentence = explain_failure(cfg, error)
        if sentence is None:
            raise
        raise InputError(sentence) from error
