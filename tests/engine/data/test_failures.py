"""A failure is explained by the data where they are its cause, and not otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope

from bnet_mm.engine.config import load_config
from bnet_mm.engine.data.annotations import look_at_annotations
from bnet_mm.engine.data.classes import class_findings
from bnet_mm.engine.data.failures import explain_failure

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
    built = SimpleNamespace(metainfo=dict(classes='x'))
    [sentence] = class_findings({}, {'train': built})
    assert sentence.startswith('the training dataset: metainfo.classes is the text')


def test_what_an_evaluation_does_not_find(coco):
    path = coco / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    for entry in content['annotations']:
        del entry['iscrowd']
    path.write_text(json.dumps(content))
    cfg = config(coco)
    [finding] = look_at_annotations(cfg, ('train', 'val'), seconds=5)
    assert f'{path}: ' in finding.text and "have no 'iscrowd'" in finding.text
    assert finding.text == explain_failure(cfg, KeyError('iscrowd'))
    assert look_at_annotations(cfg, ('train', 'val'), seconds=0) == []


def test_classes_that_fit_a_file_in_part(coco):
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    first = content['annotations'][0]['category_id']
    next(c for c in content['categories'] if c['id'] == first)['name'] = 'helmet'
    path.write_text(json.dumps(content))
    count = sum(entry['category_id'] == first for entry in content['annotations'])
    [finding] = look_at_annotations(config(coco), ('train',), seconds=5)
    total = len(content['annotations'])
    assert f'helmet: {count} of {total} annotations belong to none of the 80' in finding.text


def test_a_byte_order_mark(coco):
    path = coco / 'annotations/instances_train2017.json'
    path.write_text(path.read_text(), encoding='utf-8-sig')
    cfg = config(coco)
    assert 'begins with a byte order mark' in explain_failure(cfg, failure(cfg))
