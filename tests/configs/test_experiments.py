"""The paper's experiments: each builds, differs from its baseline by the norm, and is listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from torch import nn

from bnet_mm.engine.config import load_config
from bnet_mm.layers import BNET, GNET, INET, SNET, BNControl, EnhancedNorm, SyncBNET
from bnet_mm.models.blocks import LETTERS, block_kind, norm_after_conv
from bnet_mm.openmmlab.models import build_model

pytestmark = pytest.mark.slow

CONFIGS = sorted(Path('configs').glob('*.py'), key=lambda path: path.stem)
# What differs from a baseline by the norm alone.
ENHANCED = [path for path in CONFIGS if re.search(r'_(bnet|gnet|snet|inet|bnconv)\d_', path.name)]
# Norms at the paper's position: one for each block of the backbone, three at positions ABC.
BLOCKS = {
    'r50': 16, 'r101': 33, 'x101': 33, 'resnet18': 8, 'resnet50': 16, 'resnet101': 33,
    'resnext50': 16, 'mobilenetv2': 16, 'birealnet18': 16, 'resnet20': 9, 'resnet56': 27,
}  # fmt: skip
KINDS = {
    'bnet': BNET, 'gnet': GNET, 'snet': SNET, 'inet': INET, 'bnconv': BNControl,
}  # fmt: skip


def baseline(path: Path) -> Path:
    name = re.sub(r'_(dilated2|posa|posb|posabc)_', '_', path.name)
    name = re.sub(r'_(bnet|bnconv)\d_', '_bn_', name)
    return path.with_name(re.sub(r'_([gsi])net\d_', r'_\1n_', name))


def enhancement(path: Path) -> tuple[str, int]:
    found = re.search(r'_(bnet|gnet|snet|inet|bnconv)(\d)_', path.name)
    return found[1], int(found[2])


def metafiles() -> dict[str, dict]:
    index = yaml.safe_load(Path('model-index.yml').read_text())['Import']
    assert sorted(index) == sorted(str(p) for p in Path('configs').glob('metafiles/*.yml'))
    models = [m for path in index for m in yaml.safe_load(Path(path).read_text())['Models']]
    assert len({m['Name'] for m in models}) == len(models)
    return {m['Name']: m for m in models}


def test_the_papers_rows_are_there():
    assert {path.stem for path in CONFIGS} == set(metafiles())
    assert len(CONFIGS) == 79
    assert len(ENHANCED) == 48
    assert all(baseline(path).is_file() for path in ENHANCED)


@pytest.mark.parametrize('path', ENHANCED, ids=lambda path: path.stem)
def test_builds_with_the_norm_at_the_papers_position_of_each_block(path):
    cfg = load_config(path)
    # MMPretrain's ResNet reads numbers off a tensor while it is built.
    model = build_model(cfg, 'cpu' if cfg.default_scope == 'mmpretrain' else 'meta')
    name, k = enhancement(path)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, (EnhancedNorm, BNControl))}
    blocks = BLOCKS[re.search('|'.join(sorted(BLOCKS, key=len, reverse=True)), path.stem)[0]]
    assert len(norms) == blocks * (3 if '_posabc_' in path.name else 1)
    synchronized = cfg.default_scope == 'mmseg'
    assert {type(m) for m in norms.values()} == {SyncBNET if synchronized else KINDS[name]}
    sizes = {m.k if name != 'bnconv' else m.conv.kernel_size[0] for m in norms.values()}
    assert sizes == {k}
    dilations = {m.dilation for m in norms.values()} if name != 'bnconv' else {1}
    assert dilations == {2 if '_dilated2_' in path.name else 1}
    last = 'A' if 'mobilenet' in path.name or '_posa_' in path.name else 'C'
    last = 'B' if '_posb_' in path.name else last
    places = {
        f'{prefix}.{norm_after_conv(block, LETTERS[kind][letter])[0]}'
        for prefix, block in model.named_modules()
        if (kind := block_kind(block))
        for letter in ('ABC' if '_posabc_' in path.name else last)
    }
    assert set(norms) <= places
    plain = {
        type(m)
        for n, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and not n.endswith(('.norm', '.batch'))
    }
    assert {issubclass(kind, nn.SyncBatchNorm) for kind in plain} <= {synchronized}


@pytest.mark.parametrize('path', ENHANCED, ids=lambda path: path.stem)
def test_differs_from_its_baseline_by_the_norm_alone(path):
    bnet, bn = Config.fromfile(path), Config.fromfile(baseline(path))
    norm_cfg = dict(bnet.model.backbone.pop('norm_cfg'))
    plain = dict(bn.model.backbone.pop('norm_cfg'))
    name, k = enhancement(path)
    assert norm_cfg.pop('k') == k
    assert norm_cfg.pop('dilation', 1) == (2 if '_dilated2_' in path.name else 1)
    positions = re.search(r'_pos([abc]+)_', path.name)
    assert norm_cfg.pop('positions', None) == (positions and positions[1].upper())
    theirs = plain.pop('type')
    expected = 'BNControl' if name == 'bnconv' else theirs.replace('N', 'NET')
    assert norm_cfg.pop('type') == expected
    if name == 'inet':
        assert plain.pop('affine')  # instance norms have no scale unless told
    assert norm_cfg == plain
    assert bnet.pop('custom_imports').imports == ['bnet_mm']
    bn.pop('custom_imports', None)
    # From the checkpoint of its own baseline among the classifiers.
    if '_frelu_' in path.name and bnet.default_scope == 'mmdet':
        for cfg in (bnet, bn):
            weights = cfg.pop('weights')
            assert weights == cfg.model.backbone.init_cfg.pop('checkpoint')
            assert Path('configs', f'{Path(weights).parent.name}.py').is_file()
    assert bnet.to_dict() == bn.to_dict()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_holds_only_what_differs_from_its_base(path):
    text = path.read_text()
    base = re.search(r"^_base_ = '(.+)'$", text, re.M)[1]
    assert (
        base.startswith(('mmdet::', 'mmseg::', 'mmaction::', 'mmpretrain::'))
        or Path('configs', base).is_file()
    )
    assert len(text.splitlines()) <= 50


def test_pages_and_metafiles_have_the_same_rows_and_figures():
    text = Path('docs/experiments.md').read_text() + Path('docs/imagenet.md').read_text()
    row = re.compile(r'^\| \[\w+\]\((?:\.\./)?configs/(\w+)\.py\) \|(.*)$', re.M)
    rows = dict(row.findall(text))
    models = metafiles()
    assert set(rows) == set(models)
    # README.md repeats the four that decide.
    repeated = dict(row.findall(Path('README.md').read_text()))
    assert len(repeated) == 4 and repeated.items() <= rows.items()
    for name, row in rows.items():
        model = models[name]
        assert model['Config'] == f'configs/{name}.py'
        metrics = {k: v for r in model.get('Results', []) for k, v in r['Metrics'].items()}
        assert all(metric.endswith(('(paper)', '(authors)')) for metric in metrics)
        costs = cost_columns(name)
        shown = [float(cell) for cell in row.split('|') if cell.strip()]
        assert set(shown) <= {*metrics.values(), *costs}, name
        assert bool(shown) == bool(metrics)


def cost_columns(name: str) -> list[float]:
    from bnet_mm.analysis.complexity import PAPER_COSTS

    rows = yaml.safe_load(PAPER_COSTS.read_text())
    columns = ('params', 'gflops', 'fps')
    return [row[k] for row in rows if row.get('config') == name for k in columns if k in row]


def without_scope(cfg: dict) -> dict:
    return {key: value for key, value in cfg.items() if key != '_scope_'}


def schedule(name: str) -> Config:
    return load_config(f'configs/{name}.py')


def test_schedules_are_the_papers():
    psp = schedule('pspnet_r50_bnet3_d8_512x1024_40k_cityscapes')
    assert psp.train_cfg.max_iters == 40000
    assert (psp.optim_wrapper.optimizer.lr, psp.optim_wrapper.optimizer.weight_decay) == (
        0.01,
        5e-4,
    )
    assert (psp.param_scheduler[0].type, psp.param_scheduler[0].power) == ('PolyLR', 0.9)
    assert (psp.train_dataloader.batch_size, psp.auto_scale_lr.base_batch_size) == (2, 16)
    assert tuple(psp.model.data_preprocessor.size) == (512, 1024)

    tsn = schedule('tsn_r50_bnet5_1x1x3_100e_ucf101_split1_rgb')
    assert (tsn.optim_wrapper.optimizer.lr, tsn.optim_wrapper.optimizer.momentum) == (0.001, 0.9)
    assert tsn.param_scheduler[0].milestones == [30, 60, 90]
    assert (tsn.train_dataloader.batch_size, tsn.auto_scale_lr.base_batch_size) == (32, 256)
    assert tsn.model.cls_head.num_classes == 101

    released = schedule('faster_rcnn_r101_bnet5_fpn_ms_2x')
    assert released.train_cfg.max_epochs == 24
    assert released.param_scheduler[1].milestones == [16, 22]
    resize = released.train_dataloader.dataset.pipeline[2]
    assert resize.scale == [(1333, 480), (1333, 960)]
    assert released.model.backbone.init_cfg.checkpoint == 'torchvision://resnet101'

    longest = schedule('faster_rcnn_r50_bnet5_fpn_ms_3x')
    assert longest.train_cfg.max_epochs * longest.train_dataloader.dataset.times == 36
    assert longest.train_dataloader.dataset.type == 'RepeatDataset'

    resnet = schedule('resnet50_bnet3_100e_in1k')
    sgd = dict(type='SGD', momentum=0.9)
    assert without_scope(resnet.optim_wrapper.optimizer) == {
        **sgd,
        **dict(lr=0.1, weight_decay=1e-4),
    }
    assert (resnet.train_cfg.max_epochs, resnet.param_scheduler.milestones) == (100, [30, 60, 90])
    assert (resnet.train_dataloader.batch_size, resnet.auto_scale_lr.base_batch_size) == (32, 256)
    longer = schedule('resnet50_bnet3_autoaug_270e_in1k')
    assert (longer.train_cfg.max_epochs, longer.param_scheduler.milestones) == (270, [80, 160, 240])
    assert longer.train_dataloader.dataset.pipeline[3].policies == 'imagenet'
    mobile = schedule('mobilenetv2_w025_bnet3_150e_in1k')
    assert without_scope(mobile.optim_wrapper.optimizer) == {
        **sgd,
        **dict(lr=0.05, weight_decay=4e-5),
    }
    assert without_scope(mobile.param_scheduler) == dict(
        type='CosineAnnealingLR', T_max=150, by_epoch=True
    )
    assert mobile.train_cfg.max_epochs == 150 and mobile.model.backbone.widen_factor == 0.25
    bireal = schedule('birealnet18_bnet3_256e_in1k')
    assert bireal.optim_wrapper.optimizer == dict(type='Adam', lr=0.001)
    linear = bireal.param_scheduler
    assert (linear.type, linear.start_factor, linear.end_factor, linear.end) == (
        'LinearLR',
        1,
        0,
        256,
    )
    assert (bireal.train_dataloader.batch_size, bireal.auto_scale_lr.base_batch_size) == (64, 512)

    retina = schedule('retinanet_r101_bnet5_fpn_1x')
    assert (retina.model.type, retina.train_cfg.max_epochs) == ('RetinaNet', 12)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_data_root_moves_all_of_the_data(path):
    moved = load_config(path, {'data_root': '/elsewhere'})
    text = str({key: moved[key] for key in moved if 'dataloader' in key or 'evaluator' in key})
    assert '/elsewhere' in text
    assert 'data/coco' not in text and 'data/ucf101' not in text
    assert 'data/cityscapes' not in text and 'VOCdevkit' not in text
    assert 'data/imagenet' not in text and 'data/cifar10' not in text


def test_raw_frames_are_an_option():
    frames = schedule('tsn_r50_bnet3_1x1x3_100e_ucf101_split1_rawframes_rgb')
    for loader, clips in (('train', 3), ('val', 3), ('test', 25)):
        dataset = frames[f'{loader}_dataloader'].dataset
        assert dataset.type == 'RawframeDataset'
        assert dataset.data_prefix == dict(img='rawframes')
        assert dataset.pipeline[0].num_clips == clips


def test_model_index_can_be_read_by_openmims_reader():
    from modelindex.load_model_index import load

    index = load('model-index.yml')
    index.build_models_with_collections()
    assert len(index.models.data) == len(CONFIGS)


def test_demo_configs_are_the_same_models():
    for name in ('faster_rcnn_r18_bnet5_fpn_demo', 'pspnet_r18_bnet3_demo', 'tsn_r18_bnet3_demo',
                 'resnet18_bnet3_demo'):  # fmt: skip
        model = build_model(load_config(f'configs/demo/{name}.py'))
        assert sum(isinstance(m, BNET) for m in model.modules()) == 8
