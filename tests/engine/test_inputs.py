"""What a careless user gets to read: one sentence and exit code 2, never a traceback."""

import json
import os
import shutil

import pytest
import torch

STOCK = 'configs/faster_rcnn_r50_bnet5_fpn_1x.py'


def said(result) -> str:
    """Checks that a tool ended as it should on bad input, and returns its sentence."""
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
        ('model.backbone.norm_cfg.positions=B', 'position B of layer1.0, a BasicBlock'),
        ('data_root=nowhere', 'nowhere/annotations/instances_train2017.json; link or copy'),
        ('train_dataloader.dataset.ann_file=x.json', 'train_dataloader.dataset.ann_file'),
        ('val_evaluator.ann_file=gone.json', 'val_evaluator.ann_file'),
        ('load_from=gone.pth', 'load_from: checkpoint gone.pth: there is no file'),
        ('nonsense', '--cfg-options takes KEY=VALUE'),
        ('train_dataloader.dataset.type=CocoDatset', 'CocoDatset is not in the mmdet::dataset'),
        ('model.backbone.norm_cfg.type=BNETT', 'the config does not fit the library'),
        ('model.backbone.dept=50', "unexpected keyword argument 'dept'"),
    ],
)
def test_options(option, sentence, tiny_config, run_tool):
    assert sentence in said(run_tool('train.py', tiny_config, '--cfg-options', option))


def derived(tiny_config, text: str):
    """Returns a config file that adds `text` to the tiny one."""
    path = tiny_config.with_name('derived.py')
    path.write_text(f'_base_ = {str(tiny_config)!r}\n{text}\n')
    return path


def test_kernel_written_as_text(tiny_config, run_tool):
    config = derived(tiny_config, "model = dict(backbone=dict(norm_cfg=dict(k='5')))")
    assert 'model.backbone.norm_cfg: BNET: k must be' in said(run_tool('train.py', config))


def pretrained(tiny_config, checkpoint: str):
    init_cfg = f"dict(_delete_=True, type='Pretrained', checkpoint={checkpoint!r})"
    return derived(tiny_config, f'model = dict(backbone=dict(init_cfg={init_cfg}))')


def test_missing_config(run_tool):
    assert 'config none.py: there is no file at' in said(run_tool('train.py', 'none.py'))


def test_missing_dataset_names_the_command_that_draws_one(run_tool, tmp_path):
    shutil.copytree('configs', tmp_path / 'configs')
    sentence = said(run_tool('train.py', STOCK))
    assert str(tmp_path / 'data/coco') in sentence
    assert 'tools/make_demo_data.py coco --out data' in sentence


def test_missing_library(tmp_path, run_tool):
    (tmp_path / 'config.py').write_text("default_scope = 'mmrotate'\n_base_ = 'mmrotate::x/y.py'\n")
    sentence = said(run_tool('train.py', 'config.py'))
    assert 'needs a package that is not installed' in sentence


def test_truncated_checkpoints(tiny_config, run_tool, tmp_path):
    torch.save({'state_dict': {'w': torch.ones(999)}}, tmp_path / 'x.pth')
    (tmp_path / 'x.pth').write_bytes((tmp_path / 'x.pth').read_bytes()[:2000])
    assert 'x.pth cannot be read (2000 bytes)' in said(run_tool('test.py', tiny_config, 'x.pth'))
    sentence = said(run_tool('train.py', tiny_config, '--cfg-options', 'load_from=x.pth'))
    assert 'load_from: checkpoint x.pth cannot be read' in sentence
    sentence = said(run_tool('train.py', pretrained(tiny_config, 'x.pth')))
    assert 'model.backbone.init_cfg.checkpoint: checkpoint x.pth cannot be read' in sentence
    sentence = said(run_tool('train.py', tiny_config, '--resume', 'x.pth'))
    assert 'resume: checkpoint x.pth cannot be read' in sentence


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
def test_annotation_file_that_is_none(text, sentence, tiny_config, demo_coco, run_tool, tmp_path):
    shutil.copytree(demo_coco, tmp_path / 'coco')
    (tmp_path / 'coco/annotations/instances_train2017.json').write_bytes(text)
    options = [f'data_root={tmp_path / "coco"}']
    shown = said(run_tool('train.py', tiny_config, '--cfg-options', *options))
    assert 'instances_train2017.json' in shown
    assert sentence in shown


def test_classes_that_the_annotations_do_not_have(tiny_config, demo_coco, run_tool, tmp_path):
    shutil.copytree(demo_coco, tmp_path / 'coco')
    path = tmp_path / 'coco/annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['categories'] = [
        {'id': c['id'], 'name': f'cell {c["id"]}'} for c in content['categories']
    ]
    path.write_text(json.dumps(content))
    shown = said(
        run_tool('train.py', tiny_config, '--cfg-options', f'data_root={tmp_path / "coco"}')
    )
    assert 'cell 1' in shown
    assert 'metainfo.classes' in shown


def test_photo_that_is_missing(tiny_config, demo_coco, run_tool, tmp_path):
    shutil.copytree(demo_coco, tmp_path / 'coco')
    (tmp_path / 'coco/train2017/000000000001.jpg').unlink()
    shown = said(
        run_tool('train.py', tiny_config, '--cfg-options', f'data_root={tmp_path / "coco"}')
    )
    assert '000000000001.jpg' in shown


def test_number_of_classes_that_does_not_fit(tiny_config, run_tool):
    shown = said(
        run_tool('train.py', tiny_config, '--cfg-options', 'model.roi_head.bbox_head.num_classes=3')
    )
    assert 'num_classes' in shown


def test_download_that_fails(tiny_config, run_tool, tmp_path):
    shown = said(
        run_tool(
            'train.py',
            pretrained(tiny_config, 'https://localhost:1/x.pth'),
            env={**os.environ, 'TORCH_HOME': str(tmp_path)},
        )
    )
    assert 'could not be downloaded' in shown
