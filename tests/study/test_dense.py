"""Detection and segmentation, on drawn data in the layouts of the real ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_study import PLAN

from bnet_mm import BNET
from bnet_mm.errors import InputError
from bnet_study.backbone import StudyBackbone
from bnet_study.coco_layout import find_detection
from bnet_study.plan import ARM
from bnet_study.starts import save_weights, start_net

ROOT = Path(__file__).resolve().parents[2]
NET = dict(block='bottleneck', blocks=[1, 1, 1, 1], channels=4, stem='imagenet')


@pytest.fixture(scope='session')
def drawn(tmp_path_factory) -> Path:
    """Drawn data in the layouts of COCO and of Cityscapes."""
    root = tmp_path_factory.mktemp('drawn')
    for kind in ('coco', 'cityscapes'):
        command = [sys.executable, ROOT / 'tools/make_demo_data.py', kind, '--out', root]
        subprocess.run(
            [*map(str, command), '--train', '4', '--val', '2'], check=True, capture_output=True
        )
    return root


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'segmentation'])
def test_trains_from_the_weights_of_a_classifier(kind, study, plan_file, photos, drawn, tmp_path):
    task = dict(
        detection=dict(data='coco', scale=[96, 72], epochs=1, batch=2, lr=0.01, width=8),
        segmentation=dict(data='city', crop=[32, 64], iterations=2, batch=2, lr=0.01, width=8),
    )[kind]
    plan = plan_file(
        data=dict(photos='photos', coco=str(drawn / 'coco'), city=str(drawn / 'cityscapes')),
        nets=dict(dense=NET),
        tasks={**PLAN['tasks'], 'dense': dict(kind=kind, **task)},
        runs=[dict(task='dense', net='dense', start='colours:bn', arm='bnet3')],
    )
    study(plan)
    source, found = map(json.loads, (tmp_path / 'out' / 'runs.jsonl').read_text().splitlines())
    assert (source['task'], found['task'], found['start']) == ('colours', 'dense', 'colours:bn')
    main = dict(detection='ap', segmentation='miou')[kind]
    assert 0 <= found['test'][main] <= 100 and found['curve'][main][-1] == found['test'][main]
    assert found['images'] == [4, 2] and found['seconds'] > 0 and len(found['kernels']) == 4
    log = (tmp_path / 'out' / 'logs' / 'dense.dense.colours-bn.bnet3.0.txt').read_text()
    assert f' {main} ' in log and str(tmp_path) not in log
    log = next((tmp_path / 'work').glob('dense.*/output.txt')).read_text()
    frozen = 17 if kind == 'detection' else 0  # as the paper's detectors
    assert f'statistics frozen in {frozen} of 17'
    report = study('--results', tmp_path / 'out', program='report.py')
    assert '2 runs, of 2 configurations' in report.stdout


def backbone(arm: dict, weights: Path | None, frozen: bool) -> StudyBackbone:
    config = dict(net=NET, arm={**ARM, **arm})
    return StudyBackbone(config, 0, weights and str(weights), frozen)


def test_the_backbone_is_the_classifier_without_its_end(tmp_path):
    arm = dict(norm='bnet', k=5)
    net = start_net(dict(net=NET, arm={**ARM, **arm}), 5, 7, None).eval()
    save_weights(net, tmp_path)
    x = torch.randn(2, 3, 64, 64)
    maps = backbone(arm, tmp_path / 'weights.pth', True).eval()(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    assert all(torch.equal(a, b) for a, b in zip(maps, net.stage_maps(x)))


def test_what_is_frozen_stays():
    frozen, free = (backbone(dict(norm='bnet'), None, f).train() for f in (True, False))
    x = torch.randn(2, 3, 64, 64)
    for model in (frozen, free):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        sum(m.mean() for m in model(x)).backward()
        moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert any('running_mean' in k for k in moved) == (model is free)
    layers = [m for m in frozen.modules() if isinstance(m, BNET)]
    assert [layer.dw.weight.requires_grad for layer in layers] == [False, True, True, True]


def test_other_random_numbers_are_those_of_every_arm():
    torch.manual_seed(3)
    expected = torch.randn(4)
    for arm in (dict(), dict(norm='control')):
        torch.manual_seed(3)
        backbone(arm, None, False)
        assert torch.equal(torch.randn(4), expected)


@pytest.fixture
def coco(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn / 'coco', tmp_path / 'coco'))


def test_finds_annotations_and_photos_wherever_they_are(coco, tmp_path):
    stock = find_detection(coco, tmp_path)
    assert stock.images == (4, 2) and stock.classes and not stock.remark
    for split, name in (('train', 'train'), ('test', 'valid')):  # a folder for each split
        year = next(coco.glob(f'{"val" if split == "test" else split}*'))
        year.rename(coco / name)
        shutil.move(str(stock.annotations[split]), coco / name / '_annotations.coco.json')
    beside = find_detection(coco, tmp_path)
    assert beside.classes == stock.classes and beside.images == (4, 2)
    assert [p.name for p in beside.photos.values()] == ['train', 'valid']
    # One file alone, and photos in `images`.
    (coco / 'train').rename(coco / 'images')
    (coco / 'images' / '_annotations.coco.json').rename(coco / 'boxes.json')
    shutil.rmtree(coco / 'valid')
    contents = json.loads((coco / 'boxes.json').read_text())
    more = [{**contents['images'][0], 'id': 10 + i, 'file_name': f'x{i}.jpg'} for i in range(2)]
    for image in more:
        shutil.copy(next((coco / 'images').glob('*.jpg')), coco / 'images' / image['file_name'])
    (coco / 'boxes.json').write_text(json.dumps({**contents, 'images': contents['images'] + more}))
    alone = find_detection(coco, tmp_path)
    assert alone.images == (5, 1) and 'no test split' in alone.remark


def test_categories_without_boxes_are_no_classes(coco, tmp_path):
    stock = find_detection(coco, tmp_path)
    file = stock.annotations['train']
    contents = json.loads(file.read_text())
    contents['categories'].insert(0, dict(id=999, name='everything'))
    file.write_text(json.dumps(contents))
    assert find_detection(coco, tmp_path).classes == stock.classes


@pytest.fixture
def voc(coco, tmp_path) -> Path:
    """COCO's drawn data as Pascal VOC has them, without splits: `JPEGImages`, `Annotations`."""
    root = tmp_path / 'voc'
    (root / 'Annotations').mkdir(parents=True)
    (root / 'JPEGImages').mkdir()
    stock = find_detection(coco, tmp_path)
    for split, file in stock.annotations.items():
        contents = json.loads(file.read_text())
        names = {c['id']: c['name'] for c in contents['categories']}
        for image in contents['images']:
            stem = f'{split}{image["id"]}'
            shutil.copy(stock.photos[split] / image['file_name'], root / f'JPEGImages/{stem}.jpg')
            boxes = [b for b in contents['annotations'] if b['image_id'] == image['id']]
            objects = ''.join(
                '<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}'
                '</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'.format(
                    names[b['category_id']], int(i == 0), x, y, x + w, y + h
                )
                for i, b in enumerate(boxes)
                for x, y, w, h in [b['bbox']]
            )
            # What labelling tools write as the file's name is often of another machine.
            text = f'<annotation><filename>other.png</filename>{objects}</annotation>'
            (root / f'Annotations/{stem}.xml').write_text(text)
    return root


def test_boxes_in_xml_files_as_pascal_voc_has_them(voc, coco, tmp_path):
    stock = find_detection(coco, tmp_path)
    stock_boxes = json.loads(stock.annotations['train'].read_text())['annotations']
    alone = find_detection(voc, tmp_path)
    assert alone.images == (5, 1) and 'no test split' in alone.remark

    lists = voc / 'ImageSets' / 'Main'
    lists.mkdir(parents=True)
    for split, name in (('train', 'trainval'), ('test', 'val')):
        stems = [p.stem for p in (voc / 'Annotations').glob(f'{split}*.xml')]
        (lists / f'{name}.txt').write_text('\n'.join(stems) + '\n')
    (lists / 'test.txt').write_text('nobody_has_annotated_this\n')
    listed = find_detection(voc, tmp_path)
    assert listed.images == (4, 2) and set(listed.classes) == set(stock.classes)
    assert not listed.remark
    contents = json.loads(listed.annotations['train'].read_text())
    assert all((listed.photos['train'] / i['file_name']).is_file() for i in contents['images'])
    boxes = contents['annotations']
    assert sorted(b['bbox'] for b in boxes) == sorted(b['bbox'] for b in stock_boxes)
    assert sum(b['iscrowd'] for b in boxes) == len(contents['images'])

    shutil.rmtree(lists)
    for split, name in (('train', 'train'), ('test', 'validation')):
        for kind in ('Annotations', 'JPEGImages'):
            (voc / name / kind).mkdir(parents=True)
            for file in (voc / kind).glob(f'{split}*'):
                # Both splits number from one.
                file.rename(voc / name / kind / file.name.replace(split, ''))
    by_folder = find_detection(voc, tmp_path)
    assert by_folder.images == (4, 2)
    names = [
        i['file_name'] for i in json.loads(by_folder.annotations['test'].read_text())['images']
    ]
    assert all(name.startswith('validation/JPEGImages/') for name in names)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('<annotation><object>', 'cannot be read as XML'),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', 'declares a document type'),
        ('<annotation><object><name>a</name></object></annotation>', 'an object has no bndbox'),
        ('<annotation/>', 'has no photo of its name'),
    ],
)
def test_xml_files_that_cannot_be_used(text, sentence, voc, tmp_path):
    (voc / 'Annotations' / 'odd.xml').write_text(text)
    with pytest.raises(InputError, match=sentence):
        find_detection(voc, tmp_path)


def test_no_annotations_and_no_photos_are_one_sentence(coco, tmp_path):
    with pytest.raises(InputError, match='is no folder here; name the folder'):
        find_detection(tmp_path / 'none', tmp_path)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='has no COCO annotations'):
        find_detection(tmp_path / 'empty', tmp_path)
    for folder in coco.glob('train*'):
        shutil.rmtree(folder)
    with pytest.raises(InputError, match='is in no folder of'):
        find_detection(coco, tmp_path)
    next(coco.glob('annotations/*train*')).write_text('{')
    with pytest.raises(InputError, match='cannot be read as JSON'):
        find_detection(coco, tmp_path)
