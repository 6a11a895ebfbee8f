"""The errors of detectors: tidecv's own figures, by table 14's names, and files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils

from bnet_mm.analysis.detections import annotations_of, read_annotations, read_detections
from bnet_mm.analysis.tide import COLUMNS, MAIN, TABLE_14, analyze_errors
from bnet_mm.errors import InputError
from bnet_mm.reports.errors import draw_errors, notes_of

ROOT = Path(__file__).resolve().parents[2]
SIZE = 60
COUNTS = {'images': 4, 'categories': 3, 'objects': 12}


def corners(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def run_lengths(x, y, w, h):
    [encoded] = mask_utils.frPyObjects(corners(x, y, w, h), SIZE, SIZE)
    return {'size': encoded['size'], 'counts': encoded['counts'].decode()}


def scene(seed: int, crowds: bool = True) -> tuple[dict, list[dict]]:
    """Returns annotations, crowds among them, and detections: right, near and wrong ones."""
    rng = np.random.default_rng(seed)

    def box():
        return [float(v) for v in (*rng.integers(0, 30, 2), *rng.integers(8, 28, 2))]

    images = [
        {'id': 10 + i, 'file_name': f'{i}.jpg', 'width': SIZE, 'height': SIZE}
        for i in range(COUNTS['images'])
    ]
    categories = [{'id': 3 * i + 1, 'name': f'c{i}'} for i in range(COUNTS['categories'])]
    objects, detections = [], []
    for i in range(1, COUNTS['objects'] + 1):  # pycocotools takes an id of 0 for no match
        place = {
            'image_id': int(rng.choice([image['id'] for image in images[:-1]])),
            'category_id': int(rng.choice([category['id'] for category in categories])),
        }
        b = box()
        crowd = int(crowds and rng.random() < 0.15)
        objects.append(
            {**place, 'id': i, 'iscrowd': crowd, 'bbox': b, 'segmentation': corners(*b),
             'area': b[2] * b[3]}
        )  # fmt: skip
        for _ in range(rng.integers(0, 3)):
            found = [float(max(v + rng.normal(0, 3), 1)) for v in b]
            other = int(rng.choice([category['id'] for category in categories]))
            detections.append(
                {**place, 'bbox': found, 'score': float(rng.random()),
                 'segmentation': run_lengths(*found),
                 'category_id': other if rng.random() < 0.3 else place['category_id']}
            )  # fmt: skip
    for _ in range(4):
        b = box()
        detections.append(
            {'image_id': int(rng.choice([image['id'] for image in images])),
             'category_id': categories[0]['id'], 'bbox': b, 'score': float(rng.random()),
             'segmentation': run_lengths(*b)}
        )  # fmt: skip
    return {'images': images, 'categories': categories, 'annotations': objects}, detections


@pytest.fixture
def files(tmp_path):
    """Writes a scene and returns the two files."""

    def write(annotations, detections) -> tuple[Path, Path]:
        paths = tmp_path / 'annotations.json', tmp_path / 'found.json'
        for path, contents in zip(paths, (annotations, detections)):
            path.write_text(json.dumps(contents))
        return paths

    return write


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None
)
@given(seed=st.integers(0, 2**31))
def test_figures_are_tidecvs_own(files, seed, tmp_path_factory):
    from tidecv import TIDE, datasets

    annotations, found = files(*scene(seed))
    truth = read_annotations(annotations)
    rows = analyze_errors('ours', truth, read_detections(found, truth))
    assert [row.kind for row in rows] == ['boxes', 'masks']
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TIDE_PATH', str(tmp_path_factory.getbasetemp() / 'tide'))
        for row, mode in zip(rows, (TIDE.BOX, TIDE.MASK)):
            tide = TIDE()
            tide.evaluate_range(
                datasets.COCO(str(annotations)), datasets.COCOResult(str(found)), mode=mode
            )
            theirs = tide.get_all_errors()
            expected = {**theirs['main']['found'], **theirs['special']['found']}
            assert {COLUMNS[name]: value for name, value in expected.items()} == {
                name: value for name, value in row.values.items() if name.startswith('E_')
            }
            assert row.values['AP50'] == tide.runs['found'].ap
            aps = [run.ap for run in tide.run_thresholds['found']]
            assert row.values['AP'] == sum(aps) / len(aps)
            if any(row.values[name] for name in MAIN):
                assert sum(row.shares().values()) == pytest.approx(1)


@pytest.mark.parametrize('seed', range(5))
def test_ap_is_cocos_where_each_class_has_objects(files, seed):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, found = files(*scene(seed, crowds=False))
    truth = read_annotations(annotations)
    boxes, _ = analyze_errors('ours', truth, read_detections(found, truth))
    coco = COCO(str(annotations))
    evaluation = COCOeval(coco, coco.loadRes(str(found)), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    expected = {'AP': 100 * evaluation.stats[0], 'AP50': 100 * evaluation.stats[1]}
    assert {name: boxes.values[name] for name in expected} == pytest.approx(expected)


def test_all_found_and_nothing_found(files, tmp_path):
    annotations, _ = scene(1, crowds=False)
    perfect = [
        {**{k: a[k] for k in ('image_id', 'category_id', 'bbox')}, 'score': 0.9}
        for a in annotations['annotations']
    ]
    rows = []
    for name, detections in (('all', perfect), ('none', [])):
        paths = files(annotations, detections)
        truth = read_annotations(paths[0])
        [row] = analyze_errors(name, truth, read_detections(paths[1], truth))
        rows.append(row)
    full, empty = rows
    assert full.values['AP'] == pytest.approx(100) and not any(full.values[e] for e in MAIN)
    assert full.shares() == {}
    assert empty.values['AP'] == 0 and empty.values['E_miss'] == empty.values['E_FN'] == 100
    draw_errors(rows, tmp_path / 'errors.png')
    with Image.open(tmp_path / 'errors.png') as sheet:
        assert np.asarray(sheet).std() > 10


def test_boxes_alone_need_no_masks(files):
    annotations, detections = scene(2)
    for a in annotations['annotations']:
        del a['segmentation']
    paths = files(annotations, detections)
    truth = read_annotations(paths[0])
    [row] = analyze_errors('boxes', truth, read_detections(paths[1], truth))
    assert row.kind == 'boxes' and set(TABLE_14) < set(row.values)
    for d in detections:
        del d['bbox']
    with pytest.raises(InputError, match='it has masks and no boxes, and'):
        analyze_errors('masks', truth, detections)
    mixed = [{**detections[0], 'bbox': [1, 1, 9, 9], 'segmentation': None}, detections[1]]
    with pytest.raises(InputError, match='some of its detections have no boxes, and some no masks'):
        analyze_errors('mixed', truth, mixed)


def test_what_is_left_out_is_said(files):
    annotations, detections = scene(2, crowds=False)
    del annotations['annotations'][0]['segmentation']
    annotations['annotations'][1]['image_id'] = 99
    paths = files(annotations, detections)
    truth = read_annotations(paths[0])
    [row] = analyze_errors('x', truth, read_detections(paths[1], truth))
    assert row.kind == 'boxes' and len(truth.objects) == COUNTS['objects'] - 1
    said = notes_of([row])
    assert f'1 objects of images that {paths[0]} does not list are left out.' in said
    assert 'Masks are not compared: 1 of 11 objects' in said


def test_wrong_files_are_named(files, call_tool, tmp_path):
    annotations, detections = scene(3)
    truth, found = files(annotations, detections)
    entry = detections[0]
    for name, contents, sentence in (
        ('text.json', 'no json', 'is not a JSON file'),
        ('dict.json', '{}', 'holds no list'),
        ('image.json', json.dumps([{**entry, 'image_id': 99}]), 'of image 99, which'),
        ('class.json', json.dumps([{**entry, 'category_id': 99}]), 'of category 99, which'),
        ('nan.json', json.dumps([{**entry, 'score': float('nan')}]), 'detection 0 is damaged'),
        ('box.json', json.dumps([{**entry, 'bbox': [1, 2]}]), 'detection 0 is damaged'),
        ('no_box.json', json.dumps([{**entry, 'bbox': []}]), 'detection 0 is damaged'),
        ('list.json', json.dumps([{**entry, 'image_id': [1]}]), 'detection 0 is damaged'),
        ('null.json', json.dumps([{**entry, 'bbox': None, 'segmentation': None}]), 'is damaged'),
        ('short.json', json.dumps([{**entry, 'segmentation': [[1, 2]]}]), 'nor run lengths'),
        ('counts.json', json.dumps([{**entry, 'segmentation': {'size': [60, 60], 'counts': None}}]),
         'is neither polygons nor run lengths'),
        ('minus.json',
         json.dumps([{**entry, 'segmentation': {'size': [60, 60], 'counts': [-1, 3601]}}]),
         'run lengths that do not fill its 60x60'),
        ('mask.json', json.dumps([{**entry, 'segmentation': {'size': [9, 9], 'counts': [81]}}]),
         'has the size [9, 9], the image [60, 60]'),
    ):  # fmt: skip
        (tmp_path / name).write_text(contents)
        with pytest.raises(InputError) as error:
            known = read_annotations(truth)
            analyze_errors('x', known, read_detections(tmp_path / name, known))
        assert sentence in str(error.value)
    with pytest.raises(InputError, match='is not a COCO annotation file'):
        read_annotations(found)
    first = annotations['annotations'][0]
    for change, sentence in (
        ({'annotations': [{**first, 'bbox': []}]}, 'annotation 0 is damaged'),
        ({'annotations': [{**first, 'category_id': 99}]}, 'annotation 0 is of category 99'),
        ({'images': [{'file_name': 'x'}]}, 'an image lacks its id'),
        ({'annotations': [{**first, 'iscrowd': 1}]}, 'has no object'),
    ):
        paths = files({**annotations, **change}, [])
        with pytest.raises(InputError, match=sentence):
            analyze_errors('x', read_annotations(paths[0]), [])
    images = [{'id': image['id']} for image in annotations['images']]
    paths = files({**annotations, 'images': images}, detections)
    known = read_annotations(paths[0])
    with pytest.raises(InputError, match='tells no height and width of image'):
        analyze_errors('x', known, read_detections(paths[1], known))
    wrong = call_tool('analyze.py', 'errors', tmp_path / 'gone.json', '--annotations', truth)
    assert wrong.returncode == 2 and 'gone.json cannot be read' in wrong.stderr
    assert 'Traceback' not in wrong.stderr
    assert not (tmp_path / 'errors.png').exists()


def test_the_tool_on_result_files_and_on_a_detector(
    files, run_tool, call_tool, tmp_path, tiny_config
):
    truth, found = files(*scene(4))
    (tmp_path / 'less.json').write_text(json.dumps(json.loads(found.read_text())[:6]))
    result = call_tool(
        'analyze.py', 'errors', found, 'less.json', '--annotations', truth, '--out', 'e.pdf',
        check=True,
    )  # fmt: skip
    assert all(column in result.stdout for column in TABLE_14)
    assert (tmp_path / 'e.pdf').read_bytes().startswith(b'%PDF')

    from bnet_mm.engine.config import load_config
    from bnet_mm.openmmlab.models import build_model

    model = build_model(load_config(tiny_config))
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'x.pth')
    arguments = ('analyze.py', 'errors', tiny_config, 'x.pth', '--keep', 'kept', '--json')
    [row] = json.loads(run_tool(*arguments, check=True).stdout)
    assert row['name'] == 'tiny' and row['kind'] == 'boxes' and 0 <= row['values']['AP50'] < 50
    assert (tmp_path / 'kept/tiny.bbox.json').is_file()
    # Of some of the classes, the others' objects are not missed.
    path = tmp_path / 'some.py'
    path.write_text(
        f"""
_base_ = {str(tiny_config)!r}
metainfo = dict(classes=('clock', 'bus'))
test_dataloader = dict(dataset=dict(metainfo=metainfo))
model = dict(roi_head=dict(bbox_head=dict(num_classes=2)))
"""
    )
    cfg = load_config(path)
    known = annotations_of(cfg)
    assert sorted(known.categories.values()) == ['bus', 'clock']
    assert {entry['category_id'] for entry in known.objects} <= set(known.categories)
    for arguments, sentence in (
        ((found,), 'add --annotations FILE'),
        ((found, '--annotations', truth, '--out', 'e.xyz'), 'its suffix must be one of'),
        ((found, '--annotations', truth, '--out', truth / 'e.png'), 'e.png cannot be written'),
    ):
        wrong = call_tool('analyze.py', 'errors', *arguments)
        assert wrong.returncode == 2 and sentence in wrong.stderr and not wrong.stdout
    classifier = 'configs/demo/resnet18_bnet3_demo.py'
    wrong = call_tool('analyze.py', 'errors', ROOT / classifier, 'x.pth')
    assert wrong.returncode == 2 and 'errors are analyzed of detectors' in wrong.stderr
