"""What several test files share: roots of real and drawn data, and a training small enough."""

from __future__ import annotations

import itertools
import json
import os
import re
import runpy
import subprocess
import sys
from collections import OrderedDict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from abilities import skip_without

ROOT = Path(__file__).resolve().parent.parent
RUNNERS = itertools.count()

# Tests run in two processes, and threads that wait for one another across them cost far more time
# than they save; what a test starts inherits this.
os.environ['OMP_NUM_THREADS'] = '1'
torch.set_num_threads(1)

# Folders whose tests need the OpenMMLab libraries; others are told by what they import.
OPENMMLAB = {'analysis', 'configs', 'demo', 'engine', 'openmmlab', 'reports'}
IMPORTS_OPENMMLAB = re.compile(
    r'^(?:from|import) (?:mm|bnet_mm\.(?:analysis|engine|openmmlab))', re.MULTILINE
)
LEFT_OUT: list[str] = []
LARGE = 2**19  # bytes


@lru_cache(maxsize=None)
def needs_openmmlab(path: Path) -> bool:
    """Tells whether a file of tests needs the OpenMMLab libraries."""
    folders = set(path.relative_to(ROOT / 'tests').parts)
    return bool(OPENMMLAB & folders or IMPORTS_OPENMMLAB.search(path.read_text()))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out, beside torch alone, what could not even be imported."""
    if collection_path.suffix != '.py' or find_spec('mmengine') is not None:
        return None
    if not needs_openmmlab(collection_path):
        return None
    LEFT_OUT.append(collection_path.name)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out."""
    if LEFT_OUT:
        terminalreporter.line(f'no mmengine here: {len(LEFT_OUT)} files of tests were left out')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by their files, and puts those that train first: nothing long is left last."""
    absent = [name for name in ('mmdet', 'mmseg', 'mmaction', 'mmpretrain') if not find_spec(name)]
    for item in items:
        if needs_openmmlab(item.path):
            item.add_marker('openmmlab')
        for library in absent:
            if library in item.nodeid:  # in the name of the file or a parameter
                item.add_marker(pytest.mark.skip(reason=f'{library} is not installed'))
    items.sort(key=lambda item: item.get_closest_marker('slow') is None)  # stable


@pytest.fixture(autouse=True)
def default_scope_of_its_own():
    """No test has the default scope of another one, in which registries find other classes."""
    loaded = sys.modules.get('mmengine.registry')
    before = OrderedDict(loaded.DefaultScope._instance_dict if loaded else {})
    yield
    if loaded := sys.modules.get('mmengine.registry'):
        loaded.DefaultScope._instance_dict = before


@pytest.fixture(autouse=True)
def no_large_files_left(request):
    """Deletes what a test wrote that is large: all tests' checkpoints together fill a small disk.

    The folders stay: a runner's logger and visualizer write to theirs whenever they are next asked.
    """
    folder = request.getfixturevalue('tmp_path') if 'tmp_path' in request.fixturenames else None
    yield
    for path in folder.rglob('*') if folder else ():
        if path.is_file() and not path.is_symlink() and path.stat().st_size > LARGE:
            path.unlink()


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Root of real photos in the stock layouts; tests that want it skip where it is absent."""
    if 'BNET_DATA' not in os.environ:
        pytest.skip('no real data: set BNET_DATA to a folder with coco/, bccd/, ...')
    return Path(os.environ['BNET_DATA'])


@pytest.fixture
def process_group():
    """A group of this process alone, over gloo, as a launcher makes it."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def drawn_dataset(kind: str, library: str, folder: str, train: int, val: int):
    """Returns a fixture: the root of a small drawn dataset, in the layout of the real one."""

    @pytest.fixture(scope='session', name=f'demo_{kind}')
    def dataset(tmp_path_factory) -> Path:
        skip_without(library)
        from bnet_mm import demo

        write = getattr(demo, f'write_{kind}')
        return write(tmp_path_factory.mktemp('data') / folder, train=train, val=val)

    return dataset


demo_coco = drawn_dataset('coco', 'mmdet', 'coco', train=12, val=4)
demo_cityscapes = drawn_dataset('cityscapes', 'mmseg', 'cityscapes', train=4, val=2)
demo_voc = drawn_dataset(
    'voc', 'mmseg', 'VOC2012', train=6, val=2
)  # half of the 6 are of the aug set
demo_ucf101 = drawn_dataset('ucf101', 'mmaction', 'ucf101', train=8, val=4)  # of four classes
demo_imagenet = drawn_dataset(
    'imagenet', 'mmpretrain', 'imagenet', train=20, val=10
)  # of ten classes


@pytest.fixture
def tiny_segmentor(demo_cityscapes, tmp_path) -> Path:
    """A config file: the demo's PSPNet, thinner still and for two steps, for `demo_cityscapes`."""
    path = tmp_path / 'tiny_segmentor.py'
    path.write_text(
        f"""
_base_ = {str(ROOT / 'configs/demo/pspnet_r18_bnet3_demo.py')!r}
data_root = {str(demo_cityscapes)!r}
loader = dict(num_workers=1, dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size=2, **loader)
val_dataloader = loader
test_dataloader = loader
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=64, channels=8),
    auxiliary_head=dict(in_channels=32, channels=8),
)
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""
    )
    return path


@pytest.fixture
def tiny_recognizer(demo_ucf101, tmp_path) -> Path:
    """A config file: the demo's TSN for one epoch on `demo_ucf101`."""
    path = tmp_path / 'tiny_recognizer.py'
    path.write_text(
        f"""
_base_ = {str(ROOT / 'configs/demo/tsn_r18_bnet3_demo.py')!r}
data_root = {str(demo_ucf101)!r}
loader = dict(batch_size=4, num_workers=1, dataset=dict(data_root=data_root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""
    )
    return path


@pytest.fixture
def tiny_classifier(demo_imagenet, tmp_path) -> Path:
    """A config file: the demo's classifier, thinner and for one epoch, for `demo_imagenet`."""
    path = tmp_path / 'tiny_classifier.py'
    path.write_text(
        f"""
_base_ = {str(ROOT / 'configs/demo/resnet18_bnet3_demo.py')!r}
data_root = {str(demo_imagenet)!r}
loader = dict(batch_size=10, num_workers=0, persistent_workers=False,
              dataset=dict(data_root=data_root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
model = dict(backbone=dict(base_channels=8, stem_channels=8), head=dict(in_channels=64))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""
    )
    return path


@pytest.fixture
def tiny_config(demo_coco, tmp_path) -> Path:
    """A config file: the demo's detector, thinner still, for `demo_coco`."""
    path = tmp_path / 'tiny.py'
    path.write_text(
        f"""
_base_ = {str(ROOT / 'configs/demo/faster_rcnn_r18_bnet5_fpn_demo.py')!r}
data_root = {str(demo_coco)!r} + '/'
loader = dict(num_workers=1, dataset=dict(data_root=data_root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
    ),
)
train_cfg = dict(max_epochs=2, val_interval=2)
"""
    )
    return path


@pytest.fixture
def run_tool(tmp_path):
    """Runs a command line of `tools/` in an empty folder, as a user would."""

    def run(tool: str, *args, check: bool = False, **kwargs) -> subprocess.CompletedProcess:
        result = subprocess.run(
            [sys.executable, str(ROOT / 'tools' / tool), *map(str, args)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            errors='replace',  # ffmpeg quotes the bytes it stumbles over
            **kwargs,
        )
        if check:
            assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result

    return run


@pytest.fixture
def call_tool(tmp_path, monkeypatch, capsys):
    """Like `run_tool`, in this process: without the seconds that importing takes.

    Not for what leaves the process another one: trainings and tests of models.
    """

    def call(tool: str, *args, check: bool = False) -> subprocess.CompletedProcess:
        arguments = [tool, *map(str, args)]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, 'argv', arguments)
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        except SystemExit as ended:
            code = ended.code
        result = subprocess.CompletedProcess(arguments, code, *capsys.readouterr())
        if check:
            assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result

    return call


@pytest.fixture
def refused(tmp_path):
    """Returns why a training cannot be: `train.py`'s sentence, without the seconds of a process."""

    def refuse(config: Path, options: dict | None = None, resume: str | None = None) -> str:
        from bnet_mm.engine.config import load_config
        from bnet_mm.engine.launch import train
        from bnet_mm.errors import InputError

        cfg = load_config(config, {'work_dir': str(tmp_path / 'run'), **(options or {})})
        cfg.experiment_name = f'refused {next(RUNNERS)}'  # mmengine has one runner of each name
        with pytest.raises(InputError) as caught:
            train(cfg, resume)
        return str(caught.value)

    return refuse


# Work dirs of classifiers, of two norms and three seeds each, as trainings log them.
RUN_CONFIG = """
model = dict(backbone=dict(type='ResNet', norm_cfg=dict(type={norm!r}{k})))
randomness = dict(seed={seed})
"""
ACCURACY = {  # by norm and seed, epoch by epoch
    ('BN', 0): [50.0, 60.0, 58.0],
    ('BN', 1): [51.0, 61.0, 60.0],
    ('BN', 2): [49.0, 59.0, 59.5],
    ('BNET', 0): [55.0, 62.0, 63.0],
    ('BNET', 1): [54.0, 63.0, 63.5],
    ('BNET', 2): [56.0, 60.0, 62.0],
}


@pytest.fixture(scope='session')
def write_run():
    """Writes a work dir's logs and config, without a training."""

    def write(folder: Path, norm: str, seed: int | None, values: list[float], first=1, time='1'):
        name = f'resnet50_{norm.lower()}{"3" if norm == "BNET" else ""}_100e_in1k'
        logs = folder / f'2026_{time}/vis_data'
        logs.mkdir(parents=True)
        text = RUN_CONFIG.format(norm=norm, k=', k=3' if norm == 'BNET' else '', seed=seed)
        (folder / f'{name}.py').write_text(text)
        lines = []
        for epoch, value in enumerate(values, first):
            for i in (1, 2):
                step = 2 * (epoch - 1) + i
                record = {'epoch': epoch, 'iter': step, 'step': step, 'time': 1.8}
                lines.append({'lr': 0.1, 'loss': 3 / step, **record})
            lines.append(
                {'accuracy/top1': value, 'accuracy/top5': value + 9, 'time': 1, 'step': epoch}
            )
        (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
        return folder

    return write


@pytest.fixture
def runs(write_run, tmp_path):
    """Three seeds of a BN network and of its BNET-3 counterpart."""
    return [write_run(tmp_path / f'{n}_{s}', n, s, v) for (n, s), v in ACCURACY.items()]
