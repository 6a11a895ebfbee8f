"""Images of samples as the model gets them, and printed configs."""

from __future__ import annotations

import ast
import shutil

import cv2
import pytest

from bnet_mm.engine.browse import browse
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError


@pytest.mark.parametrize(
    ('config', 'stage', 'count'),
    [('tiny_config', 'train', 3), ('tiny_segmentor', 'val', 2), ('tiny_recognizer', 'train', 2)],
)
def test_draws_samples_of_each_library(config, stage, count, request, call_tool, tmp_path):
    config = request.getfixturevalue(config)
    args = ['--stage', stage, '--count', count, '--out', 'seen']
    shown = call_tool('browse_dataset.py', config, *args, check=True).stdout
    written = sorted((tmp_path / 'seen').iterdir())
    assert len(written) == count
    assert [line for line in shown.splitlines() if line.endswith('.png')] == [
        f'seen/{path.name}' for path in written
    ]
    for path in written:
        image = cv2.imread(str(path))
        assert min(image.shape[:2]) > 100
        assert image.std() > 10


def test_masks_of_instances_are_drawn(demo_coco, call_tool, tmp_path):
    config = tmp_path / 'masks.py'
    config.write_text("_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n")
    call_tool('browse_dataset.py', config, '--count', 1, '--out', 'seen', '--cfg-options',
             f'data_root={demo_coco}', check=True)  # fmt: skip
    assert len(list((tmp_path / 'seen').iterdir())) == 1


def test_wrong_input_is_a_sentence(tiny_config, call_tool, tmp_path):
    result = call_tool('browse_dataset.py', tiny_config, '--cfg-options', 'data_root=nowhere')
    assert result.returncode == 2
    assert 'there is nothing at' in result.stderr.splitlines()[-1]
    (tmp_path / 'file').write_text('')
    result = call_tool('browse_dataset.py', tiny_config, '--out', 'file')
    assert result.returncode == 2
    assert 'file cannot be made' in result.stderr.splitlines()[-1]


def test_datasets_that_cannot_be_drawn(tiny_config, demo_coco, tmp_path):
    def drawn(**entries):
        cfg = load_config(tiny_config)
        cfg.train_dataloader.dataset.update(entries)
        return list(browse(cfg, 'train', tmp_path / 'seen', 1, 0))

    cells = dict(metainfo=dict(classes=('cell',)))
    with pytest.raises(InputError, match=r'no image is left, since .* asks for cell'):
        drawn(**cells)
    with pytest.raises(InputError, match='the train dataset has no sample'):
        drawn(**cells, serialize_data=False)
    (tmp_path / 'x.json').write_text('<html>')
    with pytest.raises(InputError, match=r'x\.json is not JSON'):
        drawn(ann_file=str(tmp_path / 'x.json'))
    cfg = load_config(tiny_config)
    cfg.val_dataloader = None
    with pytest.raises(InputError, match='the config has no val_dataloader'):
        list(browse(cfg, 'val', tmp_path / 'seen', 1, 0))
    (tmp_path / 'seen/000000.png').mkdir(parents=True)
    with pytest.raises(InputError, match=r'000000\.png cannot be written'):
        drawn()


def test_video_that_does_not_decode_is_named(tiny_recognizer, demo_ucf101, call_tool, tmp_path):
    clips = shutil.copytree(demo_ucf101, tmp_path / 'clips')
    for video in (clips / 'videos').rglob('*.avi'):
        video.write_bytes(b'')
    result = call_tool('browse_dataset.py', tiny_recognizer, '--cfg-options', f'data_root={clips}')
    assert result.returncode == 2
    assert '.avi) cannot be loaded' in result.stderr.splitlines()[-1]


def test_printed_config_stands_alone(tiny_config, call_tool, tmp_path):
    printed = call_tool('print_config.py', tiny_config, '--cfg-options', 'train_cfg.max_epochs=7',
                       check=True).stdout  # fmt: skip
    ast.parse(printed)
    (tmp_path / 'alone.py').write_text(printed)
    expected = load_config(tiny_config, {'train_cfg.max_epochs': 7})
    assert load_config(tmp_path / 'alone.py').to_dict() == expected.to_dict()
