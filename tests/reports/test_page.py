"""The report: what it says, how it looks in a browser, that it goes on where it stopped."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bnet_mm.analysis.tide import TABLE_14
from bnet_mm.reports.page import SECTIONS, report, sections

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLASSIFIER = ROOT / 'configs/demo/resnet18_bnet3_demo.py'
PLAIN = {'model.backbone.norm_cfg': {'_delete_': True, 'type': 'BN'}}
METRICS = {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_50': 0.2}
BROWSER = shutil.which('chromium') or shutil.which('google-chrome')
# The phone's width and the desktop's.
WIDTHS = (400, 1400)
OVERFLOW = """() => [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.scroll table') && e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.outerHTML.slice(0, 80))"""
CUT = """() => [...document.querySelectorAll('figcaption, h1, h2, h3, p, td, th, nav a')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline')
    .map(e => e.outerHTML.slice(0, 80))"""


class Page(HTMLParser):
    """What a page holds: its sections' titles, the cells of its tables, its addresses."""

    def __init__(self, text: str):
        super().__init__()
        self.titles, self.rows, self.addresses, self.missing = [], [], [], []
        self._path, self._cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        entries = dict(attributes)
        self.addresses += [entries[key] for key in ('src', 'href') if key in entries]
        if tag in ('tr',):
            self.rows.append([])
        if tag in ('td', 'th', 'h2') or entries.get('class') == 'missing':
            self._cell = [tag, '']

    def handle_data(self, data):
        if self._cell:
            self._cell[1] += f' {data.strip()}'

    def handle_endtag(self, tag):
        if not self._cell or tag != self._cell[0]:
            return
        text = self._cell[1].strip()
        {'h2': self.titles, 'p': self.missing}.get(tag, self.rows[-1:] and self.rows[-1]).append(
            text
        )
        self._cell = None

    def row(self, name: str) -> list[str]:
        [found] = [row[1:] for row in self.rows if row[0] == name]
        return found


@pytest.fixture
def detectors(work_dir, tiny_config):
    """Two seeds of a BN detector and one of its BNET counterpart."""
    better = {name: 1.2 * value for name, value in METRICS.items()}
    return [
        work_dir('faster_rcnn_r50_bn_fpn_1x-0', tiny_config, PLAIN, METRICS),
        work_dir('faster_rcnn_r50_bn_fpn_1x-1', tiny_config, PLAIN, METRICS, seed=1),
        work_dir('faster_rcnn_r50_bnet5_fpn_1x-0', tiny_config, {}, better),
    ]


def test_a_whole_report_in_a_browser(detectors, run_tool, tmp_path):
    result = run_tool('report.py', *detectors, '--out', 'out/r.html', check=True)
    file = tmp_path / 'out/r.html'
    assert result.stdout.split() == ['out/r.html']
    assert f'{len(SECTIONS)}/{len(SECTIONS)} errors' in result.stderr  # its progress
    page = Page(file.read_text())
    assert page.titles == [
        'Configs', 'Metrics', 'Curves', 'Costs', 'Speed and memory', 'Heat maps', 'Attention',
        'Errors',
    ]  # fmt: skip
    assert page.missing == []
    assert all(address.startswith(('data:', '#')) for address in page.addresses)
    assert page.row('norm') == ['BN', 'BNET-5']
    assert page.row('seeds') == ['0, 1', '0']
    assert page.row('model.backbone.norm_cfg.type') == ["'BN'", "'BNET'"]
    assert page.row('trained until') == ['epoch 2 of 2'] * 2
    assert page.row('coco/bbox_mAP, final') == ['20.00 ± 0.00', '24.00 +4.00']
    assert page.row("the paper's box AP") == ['37.5', '40.1 +2.6']
    assert page.row("the paper's GFLOPs") == ['207.1', '209.9']
    batch_norms, bnets = page.row('kept for backward, backbone')
    assert bnets == batch_norms and bnets.endswith(' MiB')
    for column in TABLE_14:
        assert re.fullmatch(r'\d+\.\d\d paper [\d.]+', page.row(column)[0])
    # Attention: image by image, and the networks in the order of the command line.
    shown = re.findall(r'<h3>(\S+), (\S+) after epoch 2</h3>', file.read_text())
    assert [label for _, label in shown] == ['BNET-5'] * 3 + ['BN', 'BNET-5'] * 3
    assert [name for name, _ in shown[3::2]] == [name for name, _ in shown[:3]]
    in_a_browser(file)


def in_a_browser(file: Path) -> None:
    """Opens a page from disk, narrow and wide, and looks at everything that is drawn."""
    if BROWSER is None:
        pytest.skip('no chromium here: the page was not looked at')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
        for width in WIDTHS:
            page = browser.new_page(viewport={'width': width, 'height': 800})
            asked, said = [], []
            page.on('request', lambda request, asked=asked: asked.append(request.url))
            page.on('console', lambda message, said=said: said.append(message.text))
            page.goto(file.as_uri(), wait_until='load')
            assert [url for url in asked if not url.startswith('data:')] == [file.as_uri()]
            assert said == []
            assert page.evaluate('document.documentElement.scrollWidth') <= width
            assert page.evaluate(OVERFLOW) == [] and page.evaluate(CUT) == []
            images = page.evaluate(
                '[...document.images].map(i => [i.complete, i.naturalWidth, i.width, i.alt])'
            )
            assert len(images) > 25
            assert all(complete and own and shown and alt for complete, own, shown, alt in images)
            page.close()
        browser.close()


def test_it_goes_on_where_it_was_interrupted(work_dir, tmp_path):
    run = work_dir('resnet18-0', CLASSIFIER, {}, {'accuracy/top1': 10.0})
    command = [
        sys.executable, ROOT / 'tools/report.py', run, '--skip', 'costs',
        '--images', ROOT / 'docs/demo_detections.jpg',
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    said = ''
    for line in process.stderr:
        said += line
        if 'attention maps of BNET-3 (seconds)' in line:
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert 'the same command goes on' in said and 'Traceback' not in said
    assert not (tmp_path / 'report.html').exists()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stderr.count('kept from before') == 2  # speed and heat maps
    assert 'attention maps of BNET-3 (seconds)\n' in again.stderr
    whole = (tmp_path / 'report.html').read_text()
    assert Page(whole).missing == []
    # Another checkpoint is another part.
    (run / 'epoch_2.pth').rename(run / 'epoch_3.pth')
    newer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert newer.stderr.count('kept from before') == 1  # speed knows no weights
    assert 'after epoch 3' in (tmp_path / 'report.html').read_text()


def test_what_cannot_be_made_says_why_in_its_place(work_dir, call_tool, tmp_path):
    run = work_dir('resnet18-0', CLASSIFIER, PLAIN, {})
    (run / 'epoch_2.pth').unlink()
    call_tool('report.py', run, '--skip', 'speed', 'costs', check=True)
    page = Page((tmp_path / 'report.html').read_text())
    assert page.titles == ['Configs', 'Metrics', 'Curves', 'Heat maps', 'Attention']
    said = '\n'.join(page.missing)
    assert 'Nothing was evaluated while these trained' in said
    assert 'imagenet' in said  # there is no test set to take images from
    image = ROOT / 'docs/demo_detections.jpg'
    call_tool('report.py', run, '--skip', 'speed', 'costs', '--images', image, check=True)
    said = Page((tmp_path / 'report.html').read_text()).missing
    assert sum(f'{run} has no checkpoint' in reason for reason in said) == 2
    skipped = [section for section in SECTIONS if section != 'configs']
    for arguments, sentence in (
        ((tmp_path / 'gone',), 'is not a folder'),
        ((run, '--out', run / 'resnet18.py/r.html', '--parts', 'p'), 'cannot be written'),
        ((run, '--out', '.'), '. cannot be written'),
        ((run, '--parts', run / 'resnet18.py'), 'cannot be made'),
    ):
        wrong = call_tool('report.py', *arguments, '--skip', *skipped)
        assert wrong.returncode == 2 and sentence in wrong.stderr, wrong.stderr
        assert 'Traceback' not in wrong.stderr


def test_a_failure_costs_its_section_and_nothing_else(work_dir, tmp_path, monkeypatch, tiny_config):
    run = work_dir('faster_rcnn-0', tiny_config, {'data_root': str(tmp_path / 'gone')}, METRICS)

    def failing(*arguments):
        raise RuntimeError('unforeseen')

    monkeypatch.setattr(sections, 'curves_section', failing)
    said = []
    skip = [s for s in SECTIONS if s not in ('metrics', 'curves', 'errors')]
    report.write_report(
        [run], tmp_path / 'r.html', ROOT / 'configs', tmp_path / 'p', skip=skip, say=said.append
    )
    page = Page((tmp_path / 'r.html').read_text())
    assert page.titles == ['Metrics', 'Curves', 'Errors']
    failed, gone = page.missing
    assert failed == 'Left out, since it failed: RuntimeError: unforeseen'
    assert any('Traceback' in line and 'in failing' in line for line in said)
    assert gone.startswith('BNET-5: ') and 'instances_val2017.json cannot be read' in gone


def test_trainings_of_different_tasks_and_counts(work_dir, call_tool, tmp_path, tiny_config):
    runs = [
        work_dir('resnet18-0', CLASSIFIER, {}, {'accuracy/top1': 30.0}),
        work_dir('faster_rcnn-0', tiny_config, PLAIN, METRICS),
    ]
    [log] = runs[1].glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    for record in records:
        record.pop('epoch', None)
    log.write_text('\n'.join(map(json.dumps, records)))
    kept = ('metrics', 'curves', 'costs')
    call_tool('report.py', *runs, '--skip', *(s for s in SECTIONS if s not in kept), check=True)
    page = Page((tmp_path / 'report.html').read_text())
    assert page.missing == []
    assert page.row('accuracy/top1, final') == ['60.00', '-']
    assert page.row('coco/bbox_mAP, final') == ['-', '20.00']
    text = (tmp_path / 'report.html').read_text()
    assert 'over hours of training' in text and 'over epochs' not in text
    assert 'Counted at 224 x 224 pixels' in text


def test_names_of_files_and_metrics_are_text_and_no_html(work_dir, call_tool, tmp_path):
    options = {'custom': '<script>alert(1)</script>'}
    runs = [
        work_dir('resnet18-0', CLASSIFIER, options, {'<b>x': 1.0}),
        work_dir('resnet34-0', CLASSIFIER, {}, {'<b>x': 2.0}),
    ]
    skipped = [s for s in SECTIONS if s not in ('configs', 'metrics')]
    call_tool('report.py', *runs, '--skip', *skipped, check=True)
    text = (tmp_path / 'report.html').read_text()
    assert '<script' not in text and '<b>x' not in text
    page = Page(text)
    assert page.row('custom') == ["'<script>alert(1)</script>'", '-']
    assert page.row('<b>x, final') == ['2.00', '4.00 +2.00']
