"""A failure is explained by the data where they are its cause, and not otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope

from bnet_mm.engine.config import load_config
from bnet_mm.engine.data.failures import explain_failure
from bnet_mm.engine.dataset_check import _check_heads
from bnet_mm.errors import InputError

STOCK = 'configs/faster_rcnn_r50_bnet5_fpn_1x.py'


@pytest.fixture
def coco(demo_coco, tmp_path):
    return Path(shutil.copytree(demo_coco, tmp_path / 'coco'))


def config(coco: Path, **entries):
    cfg = load_config(STOCK, {'data_root': str(coco)})
    cfg.train_dataloader.dataset.update(entries)
    return cfg


def failure(cfg) -> Exception:
    """Returns what building the training dataset ends with."""
    init_default_scope(cfg.default_scope)
    with pytest.raises(Exception) as error:
        DATASETS.build(cfg.train_dataloader.dataset)
    return error.value


def test_failures_of_other_causes_are_not_explained(coco):
    cfg = config(coco)
    for error in (KeyError('meta'), TypeError('x'), RuntimeError('x'), ValueError('x')):
        assert explain_failure(cfg, error) is None
    with pytest.raises(ValueError, match='need at least one array') as stacked:
        np.concatenate([])
    assert explain_failure(cfg, stacked.value) is None


def test_a_missing_file_is_named(coco):
    with pytest.raises(FileNotFoundError) as error:
        (coco / 'gone.jpg').read_bytes()
    sentence = explain_failure(config(coco), error.value)
    assert sentence.startswith('a file that the run reads is missing: ')
    assert str(coco / 'gone.jpg') in sentence


def test_annotations_that_are_none(coco):
    path = coco / 'annotations/instances_train2017.json'
    path.write_text('<html>')
    cfg = config(coco)
    assert f'{path} is not JSON' in explain_failure(cfg, failure(cfg))
    path.write_text('{"images": []}')
    assert "it has no list 'annotations'" in explain_failure(cfg, failure(cfg))


def test_a_dataset_without_an_image(coco):
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    cfg = config(coco, metainfo=dict(classes=('cell', 'dust')))
    sentence = explain_failure(cfg, failure(cfg))
    assert 'train_dataloader.dataset: no image is left' in sentence
    assert 'the config asks for cell, dust; set train_dataloader.dataset.metainfo.cl' in sentence
    path.write_text(json.dumps({**content, **dict(images=[])}))
    cfg = config(coco)
    assert explain_failure(cfg, failure(cfg)) == (
        'a dataset has no image; check its ann_file, data_prefix and filter_cfg'
    )


def test_one_class_that_is_written_as_a_text(coco):
    cfg = config(coco, metainfo=dict(classes='cell'))
    sentence = explain_failure(cfg, failure(cfg))
    assert "metainfo.classes is the text 'cell'; a single class is written" in sentence
    with pytest.raises(InputError, match='the training dataset: metainfo'):
        _check_heads(None, dict(classes='x'))
