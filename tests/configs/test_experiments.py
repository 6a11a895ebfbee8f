"""The paper's experiments: each builds, differs from its twin by the norm, and is listed."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from torch import nn

from bnet_mm.analysis import dataless
from bnet_mm.engine.config import load_config
from bnet_mm.norm import BNET, SyncBNET

CONFIGS = sorted(Path('configs').glob('*.py'), key=lambda path: path.stem)
BNETS = [path for path in CONFIGS if '_bnet' in path.stem]
# Norms at position C: one for each block of the backbone.
BLOCKS = {'r50': 16, 'r101': 33, 'x101': 33}


def twin(path: Path) -> Path:
    return path.with_name(re.sub(r'_bnet\d_', '_bn_', path.name))


def metafiles() -> dict[str, dict]:
    index = yaml.safe_load(Path('model-index.yml').read_text())['Import']
    assert sorted(index) == sorted(str(p) for p in Path('configs').glob('metafiles/*.yml'))
    models = [m for path in index for m in yaml.safe_load(Path(path).read_text())['Models']]
    assert len({m['Name'] for m in models}) == len(models)
    return {m['Name']: m for m in models}


def test_the_papers_rows_are_there():
    assert {path.stem for path in CONFIGS} == set(metafiles())
    assert len(CONFIGS) == 36
    assert all(twin(path).is_file() for path in BNETS)


@pytest.mark.parametrize('path', BNETS, ids=lambda path: path.stem)
def test_builds_with_bnet_after_the_last_convolution_of_each_block(path):
    cfg = load_config(path)
    model = dataless.build(cfg, 'meta')
    enhanced = {name: m for name, m in model.named_modules() if isinstance(m, BNET)}
    assert len(enhanced) == BLOCKS[re.search('r50|x101|r101', path.stem)[0]]
    assert {m.k for m in enhanced.values()} == {int(re.search(r'bnet(\d)', path.stem)[1])}
    assert all(re.match(r'backbone\.layer\d\.\d+\.(bn3|conv3\.bn)$', name) for name in enhanced)
    synchronized = cfg.default_scope == 'mmseg'
    assert {type(m) for m in enhanced.values()} == {SyncBNET if synchronized else BNET}
    plain = {
        type(m)
        for name, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and not name.endswith('.norm')
    }
    assert {issubclass(kind, nn.SyncBatchNorm) for kind in plain} == {synchronized}


@pytest.mark.parametrize('path', BNETS, ids=lambda path: path.stem)
def test_differs_from_its_twin_by_the_norm_alone(path):
    bnet, bn = Config.fromfile(path), Config.fromfile(twin(path))
    norm_cfg = dict(bnet.model.backbone.pop('norm_cfg'))
    plain = dict(bn.model.backbone.pop('norm_cfg'))
    assert norm_cfg.pop('k') in (3, 5, 7)
    assert norm_cfg.pop('type') == plain.pop('type').replace('BN', 'BNET')
    assert norm_cfg == plain
    assert bnet.pop('custom_imports').imports == ['bnet_mm']
    assert bnet.to_dict() == bn.to_dict()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_holds_only_what_differs_from_its_base(path):
    text = path.read_text()
    base = re.search(r"^_base_ = '(.+)'$", text, re.M)[1]
    assert base.startswith(('mmdet::', 'mmseg::', 'mmaction::')) or Path('configs', base).is_file()
    assert len(text.splitlines()) <= 50


def test_readme_and_metafiles_have_the_same_rows_and_figures():
    readme = Path('README.md').read_text()
    rows = dict(re.findall(r'^\| \[\w+\]\(configs/(\w+)\.py\) \|(.*)\|$', readme, re.M))
    models = metafiles()
    assert set(rows) == set(models)
    for name, row in rows.items():
        model = models[name]
        assert model['Config'] == f'configs/{name}.py'
        metrics = {k: v for r in model.get('Results', []) for k, v in r['Metrics'].items()}
        assert all(metric.endswith('(paper)') for metric in metrics)
        costs = cost_columns(name)
        shown = [float(cell) for cell in row.split('|') if cell.strip()]
        assert set(shown) <= {*metrics.values(), *costs}, name
        assert bool(shown) == bool(metrics)


def cost_columns(name: str) -> list[float]:
    from bnet_mm.analysis.complexity import PAPER_COSTS

    rows = yaml.safe_load(PAPER_COSTS.read_text())
    return [row[k] for row in rows if row.get('config') == name for k in ('params', 'gflops')
            if k in row]  # fmt: skip


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

    retina = schedule('retinanet_r101_bnet5_fpn_1x')
    assert (retina.model.type, retina.train_cfg.max_epochs) == ('RetinaNet', 12)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_data_root_moves_all_of_the_data(path):
    moved = load_config(path, {'data_root': '/elsewhere'})
    text = str({key: moved[key] for key in moved if 'dataloader' in key or 'evaluator' in key})
    assert '/elsewhere' in text
    assert 'data/coco' not in text and 'data/ucf101' not in text
    assert 'data/cityscapes' not in text and 'VOCdevkit' not in text


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
    for name in ('faster_rcnn_r18_bnet5_fpn_demo', 'pspnet_r18_bnet3_demo', 'tsn_r18_bnet3_demo'):
        model = dataless.build(load_config(f'configs/demo/{name}.py'), 'meta')
        assert sum(isinstance(m, BNET) for m in model.modules()) == 8
        assert next(model.parameters()).device == torch.device('meta')
