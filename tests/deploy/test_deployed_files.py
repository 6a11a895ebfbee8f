"""From config and checkpoint to a file, and from the file to the libraries' own inference."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from bnet_mm.checkpoint import read_checkpoint
from bnet_mm.deploy import fuse, load, save
from bnet_mm.deploy.deployment import deploy
from bnet_mm.deploy.storage import ENTRY
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm
from bnet_mm.openmmlab.models import build_model

CLASSIFIER = dict(
    default_scope='mmpretrain',
    model=dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BNET', k=5)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
        data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True),
    ),
    test_dataloader=dict(
        dataset=dict(
            type='CustomDataset',
            data_root='somewhere/of/the/training',
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(40, 40)),
                dict(type='PackInputs'),
            ],
        )
    ),
)
META = {'classes': ('a', 'b', 'c'), 'palette': np.eye(3, dtype=int), 'label_map': {0: 1}}


@pytest.fixture
def checkpoint(trained, tmp_path):
    """Builds the model of a config, trained in a way, and returns it with its checkpoint."""

    def write(cfg, meta=META):
        model = trained(build_model(cfg))
        path = tmp_path / 'trained.pth'
        torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': meta}}, path)
        model.cfg, model.dataset_meta = cfg, dict(meta)
        return model, path

    return write


@pytest.fixture
def classifier_file(checkpoint, tmp_path):
    """The file of a folded classifier, made once."""
    path = tmp_path / 'deployed.pth'
    deploy(Config(deepcopy(CLASSIFIER)), checkpoint(Config(deepcopy(CLASSIFIER)))[1], path)
    return path


def close(a, b):
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def test_classifier(checkpoint, tmp_path):
    from mmpretrain import ImageClassificationInferencer

    cfg = Config(deepcopy(CLASSIFIER))
    model, weights = checkpoint(cfg)
    for suffix in ('.pth', '.safetensors'):
        fusion = deploy(cfg, weights, tmp_path / f'out{suffix}')
        assert len(fusion.folded) == 21 and len(fusion.ends) == len(fusion.taps) == 8
        assert fusion.difference < 1e-12
        loaded = load(tmp_path / f'out{suffix}')
        assert not any(isinstance(module, EnhancedNorm) for module in loaded.modules())
        assert loaded.fusion == fusion and not loaded.training
        assert loaded.dataset_meta == {**META, 'palette': np.eye(3, dtype=int).tolist()}
        image = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
        model._config, model._dataset_meta = cfg, model.dataset_meta
        theirs, ours = (ImageClassificationInferencer(m)(image)[0] for m in (model, loaded))
        assert ours['pred_class'] == theirs['pred_class'] in META['classes']
        np.testing.assert_allclose(ours['pred_scores'], theirs['pred_scores'], rtol=1e-3)
    assert 'training' not in (tmp_path / 'out.pth').read_bytes().decode('latin1')


def test_detector(tiny_config, checkpoint, tmp_path):
    from mmdet.apis import inference_detector

    cfg = load_config(tiny_config)
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    model, weights = checkpoint(cfg, {'CLASSES': tuple('abcdefgh')})
    deploy(cfg, weights, tmp_path / 'out.pth', shape=(64, 64))
    loaded = load(tmp_path / 'out.pth')
    assert loaded.dataset_meta == {'classes': tuple('abcdefgh'), 'palette': 'random'}
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    theirs, ours = (inference_detector(m, image).pred_instances for m in (model, loaded))
    assert len(ours) == len(theirs) > 0
    assert close(ours.scores, theirs.scores) and close(ours.bboxes, theirs.bboxes)


def test_segmentor(tiny_segmentor, checkpoint, tmp_path):
    from mmseg.apis import inference_model

    cfg = load_config(tiny_segmentor)
    model, weights = checkpoint(cfg)
    fusion = deploy(cfg, weights, tmp_path / 'out.pth', shape=(64, 96))
    assert fusion.left == {'auxiliary_head.convs.0.bn': 'it was not used on the sample input'}
    loaded = load(tmp_path / 'out.pth')
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    theirs, ours = (inference_model(m, image).seg_logits.data for m in (model, loaded))
    assert close(ours, theirs)


def test_recognizer(tiny_recognizer, demo_ucf101, checkpoint, tmp_path):
    from mmaction.apis import inference_recognizer

    cfg = load_config(tiny_recognizer)
    model, weights = checkpoint(cfg)
    deploy(cfg, weights, tmp_path / 'out.pth', shape=(64, 64))
    loaded = load(tmp_path / 'out.pth')
    video = str(next(p for p in sorted(demo_ucf101.rglob('*')) if p.suffix in ('.avi', '.mp4')))
    model.cfg = loaded.cfg
    theirs, ours = (inference_recognizer(m, video).pred_score for m in (model, loaded))
    assert close(ours, theirs)


def test_command_line(tiny_config, checkpoint, run_tool, call_tool, demo_coco, tmp_path):
    _, weights = checkpoint(load_config(tiny_config))
    image = next(iter(sorted((demo_coco / 'val2017').iterdir())))
    args = (tiny_config, weights, 'out.pth', '--shape', 64, 64, '--image', image)
    said = run_tool('deploy.py', *args, check=True).stdout
    assert 'kernels (k = 5) remain' in said and said.splitlines()[-1] == 'wrote out.pth'
    assert load(tmp_path / 'out.pth').fusion.ends
    refused = call_tool('deploy.py', *args)
    assert refused.returncode == 2 and 'exists already' in refused.stderr.splitlines()[-1]


def test_what_does_not_fit_is_said(checkpoint, tmp_path, trained):
    cfg = Config(deepcopy(CLASSIFIER))
    model, weights = checkpoint(cfg)
    out = tmp_path / 'out.pth'

    def refused(match, cfg=cfg, weights=weights, **options):
        with pytest.raises(InputError, match=match):
            deploy(cfg, weights, out, **options)
        assert not out.exists()

    refused('device nowhere cannot be used', device='nowhere')
    refused('there is no file', weights=tmp_path / 'no.pth')
    refused('there is no image none.png', image='none.png')
    refused('of no OpenMMLab library', cfg=Config(dict(model=dict(type='X'))))
    deeper = Config(deepcopy(CLASSIFIER))
    deeper.model.backbone.depth = 34
    refused('depth', cfg=deeper)
    state = {k: v for k, v in model.state_dict().items() if k != 'head.fc.bias'}
    torch.save(state, tmp_path / 'less.pth')
    refused('lacks 1 tensors, head.fc.bias', weights=tmp_path / 'less.pth')
    torch.save({**model.state_dict(), 'more': torch.ones(1)}, tmp_path / 'more.pth')
    refused('has, and the model has not, 1 tensors, more', weights=tmp_path / 'more.pth')

    with pytest.raises(InputError, match='is not folded'):
        save(model, out)
    fused = fuse(model)
    fused.head = torch.nn.Identity()
    with pytest.raises(InputError, match='not those of its config'):
        save(fused, out)
    fused = fuse(model)
    fused.backbone.layer1[0].relu = torch.nn.ReLU6()
    with pytest.raises(InputError, match='was changed after it was built'):
        save(fused, out)
    del fused.cfg
    with pytest.raises(InputError, match='has no config'):
        save(fused, out)


def test_other_types_stay(checkpoint, tmp_path):
    model, _ = checkpoint(Config(deepcopy(CLASSIFIER)))
    fused = fuse(model.bfloat16())
    save(fused, tmp_path / 'out.pth')
    loaded = load(tmp_path / 'out.pth')
    assert loaded.head.fc.weight.dtype == loaded.backbone.conv1.weight.dtype == torch.bfloat16


def changed(path, change):
    content = read_checkpoint(path)
    meta = content['meta'][ENTRY]
    parts = {k: json.loads(meta[k]) for k in ('config', 'fusion', 'dataset_meta')}
    change(parts, content)
    meta.update({k: json.dumps(v) for k, v in parts.items()})
    torch.save(content, path.with_name('hostile.pth'))
    return path.with_name('hostile.pth')


TOUCH = dict(type='pathlib.Path.touch', self='ran')


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (lambda p, c: p['config']['model'].update(type='subprocess.Popen'), 'was refused'),
        (lambda p, c: p['config']['model'].update(neck=TOUCH), 'was refused'),
        (lambda p, c: p['config']['model'].update(neck=dict(type='antigravity')), 'not registered'),
        (lambda p, c: p['config']['model'].update(neck=dict(type='mmdet.os')), 'not registered'),
        (lambda p, c: p['config']['model'].update(neck=dict(type=['x'])), 'was refused'),
        (lambda p, c: p['config']['model'].update(_scope_='evil'), "scope 'evil'"),
        (lambda p, c: p['config'].update(default_scope='evil'), 'of no OpenMMLab library'),
        (lambda p, c: p['config'].update(custom_imports=dict(imports=['x'])), 'custom_imports'),
        (lambda p, c: p['config']['test_pipeline'].append(TOUCH), 'was refused'),
        (lambda p, c: p['config']['model'].update(pretrained='x.pth'), 'the weights are in'),
        (
            lambda p, c: p['config']['model']['backbone'].update(
                init_cfg=dict(type='Pretrained', checkpoint='x.pth')
            ),
            'the weights are in',
        ),
        (lambda p, c: p['config']['model'].update(name='/etc/passwd'), 'names a file'),
        (lambda p, c: p['config']['model'].update(nonsense=1), 'does not fit the library'),
        (
            lambda p, c: p['config']['model']['backbone'].update(depth=34),
            'blocks in its stages',
        ),
        (lambda p, c: p.update(config=[1]), 'has no model'),
        (lambda p, c: p.update(fusion={}), 'description in the file is damaged'),
        (lambda p, c: p['fusion'].update(folded={'a': 3}), 'description in the file is damaged'),
        (lambda p, c: p['fusion']['folded'].update({'backbone.conv1': []}), 'neither a batch norm'),
        (lambda p, c: p['fusion']['folded'].update({'nobody': []}), 'the model has no nobody'),
        (
            lambda p, c: p['fusion']['folded'].update({'backbone.bn1': ['head.fc']}),
            'cannot have been folded',
        ),
        (lambda p, c: p['fusion']['ends'].append('backbone.conv1'), 'cannot have been joined'),
        (
            lambda p, c: c['state_dict'].pop('head.fc.bias'),
            'its tensors are not',
        ),
        (lambda p, c: c['state_dict'].update({'head.fc.bias': torch.ones(9)}), 'tensors are not'),
        (
            lambda p, c: c['state_dict'].update({'head.fc.bias': torch.ones(3).int()}),
            'its tensors are not',
        ),
        (lambda p, c: c['meta'][ENTRY].update(format=9), 'its format is 9'),
        (lambda p, c: c['meta'].pop(ENTRY), 'not a folded model'),
    ],
)
def test_hostile_and_damaged_files(change, match, classifier_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=match) as caught:
        load(changed(classifier_file, change))
    assert '\n' not in str(caught.value)
    assert not Path('ran').exists()


def test_files_that_are_none(tmp_path, classifier_file):
    with pytest.raises(InputError, match='there is no file'):
        load(tmp_path / 'none.pth')
    whole = classifier_file.read_bytes()
    classifier_file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match='cut off'):
        load(classifier_file)


def test_a_config_that_is_not_plain_is_refused(checkpoint, tmp_path):
    model, _ = checkpoint(Config(deepcopy(CLASSIFIER)))
    fused = fuse(model)
    fused.cfg = Config(deepcopy(CLASSIFIER))
    fused.cfg.model.head.topk = {1, 2}
    with pytest.raises(InputError, match=r'config\.model\.head\.topk is .* of set'):
        save(fused, tmp_path / 'out.pth')


@pytest.fixture(autouse=True)
def scope():
    """Leaves the default scope as it was for the next test."""
    yield
    init_default_scope('mmengine')
