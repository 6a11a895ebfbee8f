"""Loads a config and merges the options of a command line, which mean what they do in mmdet."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from bnet_mm.errors import InputError
from bnet_mm.openmmlab.config import class_of, walk
from bnet_mm.openmmlab.libraries import LIBRARIES, bases_by_module, package_error

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')


def load_config(path: str | Path, options: dict | None = None) -> Config:
    """Returns the config at `path` with `--cfg-options` merged.

    `data_root=...` among the options reaches the datasets and evaluators. (In a stock config the
    name is used only while the file is read, and setting it afterwards changes nothing.)

    Raises:
        InputError: there is no such file, it is not a config, its base's library is missing, or an
            option names what the config does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f'config {path}: there is no file at {path.absolute()}; the configs of bnet_mm are in '
            f'configs/ of its checkout and in bnet_mm/.mim/configs of its installation'
        )
    try:
        # Parsed on its own first: mmengine reports a syntax error without the name of the file.
        if path.suffix == '.py':
            ast.parse(path.read_text(encoding='utf-8'), filename=str(path))
        with bases_by_module(), warnings.catch_warnings():
            # mmengine itself imports it, for `mmdet::` bases.
            warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)
            cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program, and its bases can contradict one another
        raise InputError(f'config {path} {_load_failure(error)}') from error
    options = dict(options or {})
    old_root, new_root = cfg.get('data_root'), options.get('data_root')
    for key, value in options.items():
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f'--cfg-options {key}={value}: the config has no such entry ({error})'
            ) from error
    if isinstance(old_root, str) and isinstance(new_root, str):
        _move_data_root(cfg, old_root, new_root, explicit=options)
    model_class = (cfg.get('model') or {}).get('type')
    library = getattr(model_class, '__module__', '').partition('.')[0]
    if cfg.get('default_scope') is None and library in LIBRARIES:
        cfg.default_scope = library  # of a config in Python, which needs none for its classes
    if cfg.get('model') and cfg.get('data_preprocessor'):
        # MMPretrain's is beside the model, where a model that is built alone would not get it.
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg


def _load_failure(error: Exception) -> str:
    if isinstance(error, (SyntaxError, UnicodeDecodeError)):
        return f'is not valid Python: {error}'
    if isinstance(error, (ImportError, PackageNotFoundError)):
        return f'cannot be loaded: {package_error(error)}'
    if isinstance(error, FileNotFoundError):
        return f'cannot be loaded: a base config or a file that it reads is missing: {error}'
    if isinstance(error, OSError):
        return f'cannot be read: {error}'
    reason = ' '.join(str(error).split())
    return f'cannot be loaded: {type(error).__name__}: {reason}'


def set_run_options(
    cfg: Config,
    *,
    config_path: str | Path,
    work_dir: str | None = None,
    launcher: str = 'none',
    amp: bool = False,
    auto_scale_lr: bool = False,
    validate: bool = True,
    seed: int | None = None,
) -> None:
    """Writes the command line options of a training or a test into `cfg`.

    Args:
        cfg: changed in place.
        config_path: its file, after which the default work dir is named.
        work_dir: folder of logs and results.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        amp: automatic mixed precision.
        auto_scale_lr: scale the learning rate by the batch size.
        validate: False for a training without evaluation.
        seed: of the random numbers.

    Raises:
        InputError: this config, or this machine, cannot take an option.
    """
    _check_launcher(launcher)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(config_path).stem)
    if amp:
        if not cfg.get('optim_wrapper'):
            raise InputError('--amp needs an optim_wrapper in the config')
        kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise InputError(f'--amp takes an OptimWrapper; this config has optim_wrapper {kind}')
        if get_device() == 'cpu':
            raise InputError('--amp needs an accelerator, and torch finds none on this machine')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise InputError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if seed is not None:
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}
    for name in LOADERS:
        # torch refuses workers that persist where there are none.
        if (cfg.get(name) or {}).get('num_workers') == 0:
            cfg[name]['persistent_workers'] = False
    _settle_loop(cfg)


def set_drawing(cfg: Config, *, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Turns on the visualization hook of any of the four libraries.

    Raises:
        InputError: the config has no visualization hook, or there is no display to show on.
    """
    if show and sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
        raise InputError('--show opens windows and there is no display here; use --show-dir FOLDER')
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise InputError('--show and --show-dir need default_hooks.visualization in the config')
    hook_class = class_of(hook, HOOKS, cfg.get('default_scope'))
    takes = inspect.signature(hook_class).parameters
    hook['draw' if 'draw' in takes else 'enable'] = True
    if 'interval' in takes:
        hook.setdefault('interval', 1)  # the libraries' own leave a small test set without any
    if show:
        hook['show'] = True
        hook['wait_time'] = wait_time
    if show_dir:
        for name in ('test_out_dir', 'out_dir'):  # mmdet's; mmpretrain's and mmaction2's
            if name in takes:
                hook[name] = show_dir
                return
        cfg.visualizer['save_dir'] = show_dir  # mmseg's


def _check_launcher(launcher: str) -> None:
    """Raises InputError if the environment that a launcher sets for mmengine is missing."""
    if launcher == 'none':
        return
    sets, script = {
        'pytorch': ('RANK', 'tools/dist_train.sh CONFIG GPUS, or torchrun'),
        'slurm': ('SLURM_PROCID', 'tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR, or srun'),
        'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'mpirun'),
    }[launcher]
    if sets not in os.environ:
        raise InputError(f'--launcher {launcher}: {sets} is not set; start this with {script}')
    if get_device() == 'cpu' and launcher != 'pytorch':
        raise InputError(
            f'--launcher {launcher} needs an accelerator for each process, and torch finds none on '
            f'this machine: start processes on CPUs with tools/dist_train.sh, or torchrun'
        )


def _settle_loop(cfg: Config) -> None:
    """Removes what an epoch-based base sets where an option asks for iterations."""
    train_cfg = cfg.get('train_cfg') or {}
    kind = train_cfg.get('type')
    if kind is None and 'by_epoch' in train_cfg:
        kind = 'EpochBasedTrainLoop' if train_cfg['by_epoch'] else 'IterBasedTrainLoop'
    elif 'by_epoch' in train_cfg:
        train_cfg.pop('by_epoch')  # mmpretrain's bases; mmengine takes one of the two
    if kind == 'EpochBasedTrainLoop' and 'max_iters' in train_cfg:
        raise InputError(
            'train_cfg has max_iters and an EpochBasedTrainLoop: set train_cfg.max_epochs, or add '
            'train_cfg.type=IterBasedTrainLoop'
        )
    if kind != 'IterBasedTrainLoop':
        return
    if 'max_iters' not in train_cfg:
        raise InputError('train_cfg.type=IterBasedTrainLoop needs train_cfg.max_iters')
    if train_cfg.pop('max_epochs', None) is None:
        return  # the config itself counts iterations
    hooks = cfg.get('default_hooks') or {}
    if 'checkpoint' in hooks and 'by_epoch' not in hooks['checkpoint']:
        hooks['checkpoint']['by_epoch'] = False
        if hooks['checkpoint'].get('interval', 1) == 1:
            hooks['checkpoint']['interval'] = train_cfg.get('val_interval', train_cfg['max_iters'])
    if cfg.get('log_processor'):
        cfg.log_processor['by_epoch'] = False
    if 'logger' in hooks:  # else all evaluations are logged as of step 0
        hooks['logger']['log_metric_by_epoch'] = False
    print_log(
        'train_cfg counts iterations: max_epochs is dropped, logs and checkpoints count '
        'iterations too, and schedules of param_scheduler that count epochs have no effect',
        logger='current',
    )


def _move_data_root(cfg: Config, old: str, new: str, explicit: dict) -> None:
    """Replaces the data root at the start of every path of the datasets and evaluators.

    Args:
        cfg: changed in place.
        old: the data root in the config's file.
        new: the one to put in its place.
        explicit: options, whose entries stay as they say.
    """
    old, new = old.rstrip('/') + '/', new.rstrip('/') + '/'
    for section in (*LOADERS, *EVALUATORS):
        for where, node in walk(cfg.get(section), section):
            if not isinstance(node, (dict, list)):
                continue
            for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
                kept = any(f'{where}.{key}.'.startswith(f'{option}.') for option in explicit)
                if isinstance(value, str) and f'{value}/'.startswith(old) and not kept:
                    node[key] = new + value[len(old) :].lstrip('/')
