"""Wrong input ends a run with one sentence and exit code 2.

A traceback is shown of a library's own error alone, before the sentence that explains it.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from bnet_mm.engine.config import load_config
from bnet_mm.engine.inputs import check_inputs
from bnet_mm.engine.launch import test, train
from bnet_mm.errors import InputError

pytestmark = pytest.mark.slow

STOCK = 'configs/faster_rcnn_r50_bnet5_fpn_1x.py'


def said(result) -> str:
    """Checks that a tool refused its input, and returns its sentence."""
    assert result.returncode == 2, result.stdout[-2000:] + result.stderr[-2000:]
    assert 'Traceback' not in result.stdout + result.stderr
    sentence = result.stderr.strip().splitlines()[-1]
    assert ': error: ' in sentence
    return sentence


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        ('model.backbone.norm_cfg.k=4', 'model.backbone.norm_cfg: BNET: k must be a positive odd'),
        ('model.backbone.norm_cfg.k=0', 'got k=0'),
        ('model.backbone.norm_cfg.positions=D', "got positions='D'"),
        ('model.backbone.norm_cfg.kernel_size=5', "BNET takes no 'kernel_size'"),
        (
            'model.backbone.norm_cfg.positions=B',
            'have no norm there, layer1.0, a BasicBlock, for one',
        ),
        ('load_from=gone.pth', 'load_from: checkpoint gone.pth: there is no file'),
        ('nonsense', '--cfg-options takes KEY=VALUE'),
    ],
)
def test_options(option, sentence, tiny_config, call_tool):
    assert sentence in said(call_tool('train.py', tiny_config, '--cfg-options', option))


@pytest.mark.parametrize(
    ('entry', 'value', 'sentence'),
    [
        ('data_root', 'nowhere', 'nowhere/annotations/instances_train2017.json; link or copy'),
        ('train_dataloader.dataset.ann_file', 'x.json', 'train_dataloader.dataset.ann_file'),
        ('val_evaluator.ann_file', 'gone.json', 'val_evaluator.ann_file'),
        ('train_dataloader.dataset.type', 'CocoDatset', 'CocoDatset is not in the mmdet::dataset'),
        ('model.backbone.norm_cfg.type', 'BNETT', 'the config does not fit the library'),
        ('model.backbone.dept', 50, "unexpected keyword argument 'dept'"),
    ],
)
def test_entries_that_the_library_cannot_use(entry, value, sentence, tiny_config, refused):
    assert sentence in refused(tiny_config, {entry: value})


def derived(tiny_config, text: str):
    """Returns a config file that adds `text` to the tiny one."""
    path = tiny_config.with_name('derived.py')
    path.write_text(f'_base_ = {str(tiny_config)!r}\n{text}\n')
    return path


def test_kernel_written_as_text(tiny_config, refused):
    config = derived(tiny_config, "model = dict(backbone=dict(norm_cfg=dict(k='5')))")
    assert 'model.backbone.norm_cfg: BNET: k must be' in refused(config)


def pretrained(tiny_config, checkpoint: str):
    init_cfg = f"dict(_delete_=True, type='Pretrained', checkpoint={checkpoint!r})"
    return derived(tiny_config, f'model = dict(backbone=dict(init_cfg={init_cfg}))')


def test_missing_config(call_tool):
    assert 'config none.py: there is no file at' in said(call_tool('train.py', 'none.py'))


def test_missing_dataset_names_the_command_that_draws_one(call_tool, tmp_path):
    shutil.copytree('configs', tmp_path / 'configs')
    sentence = said(call_tool('train.py', STOCK))
    assert str(tmp_path / 'data/coco') in sentence
    assert 'tools/make_demo_data.py coco --out data' in sentence


def test_missing_library(tmp_path, call_tool):
    (tmp_path / 'config.py').write_text("default_scope = 'mmrotate'\n_base_ = 'mmrotate::x/y.py'\n")
    sentence = said(call_tool('train.py', 'config.py'))
    assert 'needs a package that is not installed' in sentence


def test_truncated_checkpoints(tiny_config, run_tool, refused, tmp_path):
    torch.save({'state_dict': {'w': torch.ones(999)}}, tmp_path / 'x.pth')
    (tmp_path / 'x.pth').write_bytes((tmp_path / 'x.pth').read_bytes()[:2000])
    assert 'x.pth cannot be read (2000 bytes)' in said(run_tool('test.py', tiny_config, 'x.pth'))
    x = str(tmp_path / 'x.pth')
    sentence = refused(tiny_config, {'load_from': x})
    assert f'load_from: checkpoint {x} cannot be read' in sentence
    sentence = refused(pretrained(tiny_config, x))
    assert f'model.backbone.init_cfg.checkpoint: checkpoint {x} cannot be read' in sentence
    sentence = refused(tiny_config, resume=x)
    assert f'resume: checkpoint {x} cannot be read' in sentence


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        (b'<html>404</html>', 'is not JSON'),
        (b'{"images": [', 'is not JSON'),
        (b'\xff\xfe\x00', 'is not JSON'),
        (b'{"images": []}', 'is not a COCO annotation file'),
        (b'[1, 2]', 'is not a COCO annotation file'),
    ],
)
def test_annotation_file_that_is_none(text, sentence, tiny_config, demo_coco, refused, tmp_path):
    shutil.copytree(demo_coco, tmp_path / 'coco')
    (tmp_path / 'coco/annotations/instances_train2017.json').write_bytes(text)
    shown = refused(tiny_config, {'data_root': str(tmp_path / 'coco')})
    assert 'instances_train2017.json' in shown
    assert sentence in shown


def test_classes_that_the_annotations_do_not_have(tiny_config, demo_coco, refused, tmp_path):
    shutil.copytree(demo_coco, tmp_path / 'coco')
    path = tmp_path / 'coco/annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['categories'] = [
        {'id': c['id'], 'name': f'cell {c["id"]}'} for c in content['categories']
    ]
    path.write_text(json.dumps(content))
    shown = refused(tiny_config, {'data_root': str(tmp_path / 'coco')})
    assert 'cell 1' in shown
    assert 'metainfo.classes' in shown


def test_photo_that_is_missing_or_cut_off(tiny_config, demo_coco, run_tool, refused, tmp_path):
    shutil.copytree(demo_coco, tmp_path / 'coco')
    photo = tmp_path / 'coco/train2017/000000000001.jpg'
    photo.write_bytes(photo.read_bytes()[:200])
    root = f'data_root={tmp_path / "coco"}'
    shown = said(run_tool('train.py', tiny_config, '--cfg-options', root))
    assert f'{photo} cannot be read as an image' in shown
    photo.unlink()
    shown = refused(tiny_config, {'data_root': str(tmp_path / 'coco')})
    assert f'there is no file {photo}' in shown


def test_number_of_classes_that_does_not_fit(tiny_config, refused):
    shown = refused(tiny_config, {'model.roi_head.bbox_head.num_classes': 3})
    assert 'the training dataset has 80 classes and model.roi_head.bbox_head has num_cl' in shown
    assert 'set model.roi_head.bbox_head.num_classes=80' in shown


def test_download_that_fails(tiny_config, run_tool, tmp_path, monkeypatch):
    """The sentence names what is missing, and the option that names another."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    url = 'https://localhost:1/x.pth'
    config = pretrained(tiny_config, url)
    shown = said(run_tool('train.py', config))
    assert f'error: {url} could not be downloaded' in shown
    assert shown.endswith('--cfg-options model.backbone.init_cfg.checkpoint=FILE')
    (tmp_path / 'hub/checkpoints').mkdir(parents=True, exist_ok=True)
    torch.save({}, tmp_path / 'hub/checkpoints/x.pth')  # as if downloaded before
    other = 'https://localhost:1/other.pth'
    cfg = load_config(config, {'load_from': other, 'work_dir': str(tmp_path / 'run')})
    with pytest.raises(InputError, match=f'^{other} could.* --cfg-options load_from=FILE$'):
        train(cfg)
    cfg.experiment_name = 'tested'
    with pytest.raises(InputError, match=f'^{other} could.* with the argument CHECKPOINT$'):
        test(cfg, other)


@pytest.mark.parametrize('entry', ['model', 'train_dataloader', 'test_dataloader'])
def test_parts_of_a_config_that_are_missing(entry, tiny_config):
    cfg = load_config(tiny_config)
    cfg[entry] = None
    with pytest.raises(InputError, match=f'the config has no {entry}$'):
        check_inputs(cfg, ('train', 'test'))


def test_weights_are_no_training_to_go_on_with(tiny_config, tmp_path):
    cfg = load_config(tiny_config)
    torch.save({'state_dict': {'w': torch.ones(1)}, 'meta': {}}, tmp_path / 'x.pth')
    with pytest.raises(InputError, match=r'resume: .*x\.pth holds no training .* load_from='):
        train(cfg, resume=str(tmp_path / 'x.pth'))


def test_places_that_cannot_be_written(tiny_config, tmp_path):
    (tmp_path / 'file').write_text('')
    torch.save({'state_dict': {'w': torch.ones(1)}}, tmp_path / 'x.pth')
    cfg = load_config(tiny_config)
    cfg.work_dir = str(tmp_path / 'file/run')
    with pytest.raises(InputError, match=r'the work dir .*file/run cannot be made'):
        train(cfg)
    with pytest.raises(InputError, match=r'--out .*found\.pkl: its folder cannot be made'):
        test(cfg, str(tmp_path / 'x.pth'), out=str(tmp_path / 'file/found.pkl'))


def test_test_time_augmentation_wants_its_entries(tiny_recognizer, tmp_path):
    torch.save({'state_dict': {'w': torch.ones(1)}}, tmp_path / 'x.pth')
    with pytest.raises(InputError, match='--tta needs tta_model and tta_pipeline'):
        test(load_config(tiny_recognizer), str(tmp_path / 'x.pth'), tta=True)


test.__test__ = False  # the launcher's, not pytest's
