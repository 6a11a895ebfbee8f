"""Lists of images and clips: an error names file and line."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest
from abilities import needs_mmaction, skip_without

from bnet_mm.engine.config import load_config
from bnet_mm.engine.data.files import explain_files
from bnet_mm.errors import InputError

VIDEOS = 'configs/tsn_r50_bnet3_1x1x3_100e_ucf101_split1_rgb.py'
FRAMES = 'configs/tsn_r50_bnet3_1x1x3_100e_ucf101_split1_rawframes_rgb.py'
VOC = 'configs/deeplabv3_r101_bnet3_d8_512x512_20k_voc12aug.py'
CITYSCAPES = 'configs/pspnet_r50_bnet3_d8_512x1024_40k_cityscapes.py'
STAGES = ('train', 'val')


def check_data(cfg, stages):
    """Raises what a run that failed would be told of its files."""
    if problem := explain_files(cfg, stages):
        raise InputError(problem)


def check(config: str, data: Path, stages=STAGES) -> None:
    check_data(load_config(config, {'data_root': str(data)}), stages)


@pytest.fixture
def clips(demo_ucf101, tmp_path):
    return Path(shutil.copytree(demo_ucf101, tmp_path / 'ucf101'))


@pytest.fixture
def voc(demo_voc, tmp_path):
    return Path(shutil.copytree(demo_voc, tmp_path / 'VOC2012'))


def test_the_drawn_datasets_are_in_order(clips, voc, demo_cityscapes):
    check(VIDEOS, clips, ('train', 'val', 'test'))
    check(VOC, voc, ('train', 'val', 'test'))
    check(CITYSCAPES, demo_cityscapes, ('train', 'val', 'test'))


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        (
            'Swing/v_Swing_g01_c01.avi',
            '1 of 2 entries: a line is FILE LABEL, and the label',
        ),
        ('Swing/v_Swing_g01_c01.avi Swing', "the label 'Swing' is not a number of a class"),
        ('Swing/v_Swing_g01_c01.avi -1', "the label '-1' is not a number of a class"),
        ('Swing/v_Swing_g01_c01.avi 101', 'label 101 is out of range: the 101 classes'),
        ('Swing/a clip.avi 3', '3 entries: a line is FILE LABEL, with one label'),
        ('Swing/gone.avi 3', 'there is no file'),
        ('', 'line 2 is blank'),
    ],
)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_lines_of_a_list_of_videos(line, sentence, split, clips):
    listed = clips / f'ucf101_{split}_split_1_videos.txt'
    lines = listed.read_text().splitlines()
    listed.write_text('\n'.join([lines[0], line, *lines[1:]]) + '\n')
    with pytest.raises(InputError, match=f'{listed.name}, line 2') as error:
        check(VIDEOS, clips)
    assert sentence in str(error.value)


@pytest.mark.parametrize('content', [b'', b'\n\n', b' \n'])
def test_empty_lists(content, clips, voc):
    listed = clips / 'ucf101_val_split_1_videos.txt'
    listed.write_bytes(content)
    with pytest.raises(InputError, match=r'ucf101_val_split_1_videos\.txt is empty'):
        check(VIDEOS, clips)
    (voc / 'ImageSets/Segmentation/aug.txt').write_bytes(content)
    with pytest.raises(InputError, match=r'aug\.txt is empty'):
        check(VOC, voc)


def test_list_that_is_no_text(clips):
    (clips / 'ucf101_train_split_1_videos.txt').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(InputError, match='is not a text file'):
        check(VIDEOS, clips)


def test_images_and_masks_that_are_listed_and_missing(voc):
    listed = voc / 'ImageSets/Segmentation/val.txt'
    name = listed.read_text().splitlines()[1]
    (voc / f'SegmentationClass/{name}.png').unlink()
    with pytest.raises(InputError, match=rf'val\.txt, line 2 .*: there is no file .*{name}\.png'):
        check(VOC, voc)
    (voc / f'JPEGImages/{name}.jpg').unlink()
    with pytest.raises(InputError, match=rf'val\.txt, line 2 .*: there is no file .*{name}\.jpg'):
        check(VOC, voc)


def test_folder_without_images_of_the_right_name(demo_cityscapes, tmp_path):
    shutil.copytree(demo_cityscapes, tmp_path / 'city')
    for image in (tmp_path / 'city/leftImg8bit/val').rglob('*.png'):
        image.rename(image.with_name(image.name.replace('_leftImg8bit', '')))
    with pytest.raises(InputError, match='no image whose name ends in _leftImg8bit'):
        check(CITYSCAPES, tmp_path / 'city')


@pytest.fixture
def frames(tmp_path):
    """Two clips of three frames each, for training and validation alike."""
    skip_without('mmaction')
    for clip in ('a', 'b'):
        folder = tmp_path / f'ucf101/rawframes/{clip}'
        folder.mkdir(parents=True)
        for number in (1, 2, 3):
            image = cv2.UMat(16, 16, cv2.CV_8UC3).get()
            cv2.imwrite(str(folder / f'img_{number:05d}.jpg'), image)
    for split in STAGES:
        path = tmp_path / f'ucf101/ucf101_{split}_split_1_rawframes.txt'
        path.write_text('a 3 0\nb 3 1\n')
    return tmp_path / 'ucf101'


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('a 3', '2 of 3 entries: a line is FOLDER FRAMES LABEL'),
        ('a three 0', 'the number of frames is not a positive integer'),
        ('a 0 0', 'the number of frames is not a positive integer'),
        ('a 4 0', 'img_00004.jpg'),
        ('c 3 0', 'there is no folder'),
        ('a 3 500', 'label 500 is out of range'),
        ('a 3 0 1', '4 entries: a line is FOLDER FRAMES LABEL, with one label'),
    ],
)
def test_lines_of_a_list_of_frame_folders(line, sentence, frames):
    check(FRAMES, frames)
    listed = frames / 'ucf101_train_split_1_rawframes.txt'
    listed.write_text(f'b 3 1\n{line}\n')
    with pytest.raises(InputError, match='line 2') as error:
        check(FRAMES, frames)
    assert sentence in str(error.value)


def test_lines_of_a_list_with_first_frames(frames):
    listed = frames / 'ucf101_train_split_1_rawframes.txt'
    cfg = load_config(FRAMES, {'data_root': str(frames)})
    cfg.train_dataloader.dataset.with_offset = True
    for line, sentence in (
        ('a x 3 0', "the first frame 'x' is not a number; a line is FOLDER FIRST_FRAME"),
        ('a 0 x 0', 'the number of frames is not a positive integer; a line is FOLDER FIRST'),
        ('a 3 0', '3 of 4 entries: a line is FOLDER FIRST_FRAME FRAMES LABEL'),
    ):
        listed.write_text(f'{line}\n')
        with pytest.raises(InputError, match='line 1') as error:
            check_data(cfg, ('train',))
        assert sentence in str(error.value)
    listed.write_text('a 0 3 0\n')
    check_data(cfg, ('train',))


def test_list_that_is_a_folder(clips):
    listed = clips / 'ucf101_train_split_1_videos.txt'
    listed.unlink()
    listed.mkdir()
    with pytest.raises(InputError, match=f'{listed.name} cannot be read: Is a directory'):
        check(VIDEOS, clips)


@needs_mmaction
def test_missing_dataset_names_the_command_that_draws_one(tmp_path):
    for config, layout in ((VIDEOS, 'ucf101'), (VOC, 'voc'), (CITYSCAPES, 'cityscapes')):
        with pytest.raises(InputError, match=f'make_demo_data.py {layout} --out data'):
            check(config, tmp_path / 'none')
