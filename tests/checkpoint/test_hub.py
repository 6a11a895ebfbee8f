"""A checkpoint as a folder for the Hub: what is written is read, and strangers' folders."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from authors import randomize
from torch import nn

from bnet_mm import BNET, GNET, enhance
from bnet_mm.checkpoint import (
    from_pretrained,
    push_to_hub,
    read_checkpoint,
    save_pretrained,
    write_checkpoint,
)
from bnet_mm.errors import InputError

pytest.importorskip('safetensors')
torchvision = pytest.importorskip('torchvision')


class Branch(nn.Module):
    """Two norms of one width: one becomes BNET, the other does not."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)

    def forward(self, images):
        return self.fc(self.second(self.first(self.conv(images)).relu()).mean((2, 3)))


def with_bnet(k: int = 3, dilation: int = 1) -> Branch:
    model = Branch()
    model.second = BNET(4, k=k, dilation=dilation)
    return randomize(model)


def same(state, other) -> bool:
    return list(state) == list(other) and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name])
        for name, value in state.items()
    )


@pytest.mark.parametrize(('k', 'positions', 'dilation'), [(3, 'C', 1), (5, 'AC', 2), (7, 'all', 1)])
def test_a_network_comes_back_bit_by_bit(k, positions, dilation, tmp_path):
    model = randomize(enhance(torchvision.models.resnet18(), k, positions, dilation)).eval()
    folder = save_pretrained(model, tmp_path / 'r18')
    read = from_pretrained(folder)
    assert same(dict(sorted(model.state_dict().items())), dict(sorted(read.items())))

    # A plain network gets BNET where the checkpoint has it, and computes the same.
    plain = from_pretrained(folder, torchvision.models.resnet18().eval())
    for (name, norm), (other_name, other) in zip(model.named_modules(), plain.named_modules()):
        assert (name, type(norm)) == (other_name, type(other))
        if isinstance(norm, BNET):
            assert (norm.k, norm.dilation) == (other.k, other.dilation) == (k, dilation)
    images = torch.randn(2, 3, 40, 40)
    assert torch.equal(model(images), plain(images))
    assert not plain.training

    own = enhance(torchvision.models.resnet18(), k, positions, dilation)
    assert same(model.state_dict(), from_pretrained(folder, own).state_dict())


def test_a_norm_of_the_family_and_half_precision_come_back(tmp_path):
    model = nn.Sequential(GNET(4, k=3, num_groups=2)).half()
    nn.init.normal_(model[0].dw.weight)
    folder = save_pretrained(model, tmp_path / 'g')
    plain = nn.Sequential(nn.GroupNorm(2, 4)).half()
    assert torch.equal(from_pretrained(folder, plain)[0].dw.weight, model[0].dw.weight)
    assert type(plain[0]) is GNET


def test_a_network_of_another_dilation_is_refused_both_ways(tmp_path):
    for ours, theirs in ((1, 2), (2, 1)):
        folder = save_pretrained(with_bnet(dilation=theirs), tmp_path / f'{theirs}')
        with pytest.raises(InputError, match=f'dilation {theirs}, the model of dilation {ours}'):
            from_pretrained(folder, with_bnet(dilation=ours))


def test_a_file_of_a_training_keeps_its_meta_and_dilation(tmp_path):
    model = with_bnet(k=5, dilation=2)
    meta = {'epoch': 12, 'bnet_mm': {'source': 'x.pth'}, 'classes': ['a', 'b']}
    torch.save(
        {'state_dict': model.state_dict(), 'meta': meta, 'optimizer': {'lr': 1}},
        tmp_path / 'epoch_12.pth',
    )
    folder = save_pretrained(tmp_path / 'epoch_12.pth', tmp_path / 'published')
    assert sorted(file.name for file in folder.iterdir()) == [
        'README.md',
        'config.json',
        'model.safetensors',
    ]
    assert read_checkpoint(folder / 'model.safetensors')['meta'] == meta
    config = json.loads((folder / 'config.json').read_text())
    assert config['bnet'] == {'second': {'k': 5, 'dilation': 2}}
    assert same(model.state_dict(), from_pretrained(folder, Branch()).state_dict())


def test_what_no_tensor_is_is_left_out_and_said(tmp_path):
    checkpoint = {'state_dict': with_bnet().state_dict(), 'notes': 'a text'}
    with pytest.warns(UserWarning, match='not tensors, and left out: notes'):
        save_pretrained(checkpoint, tmp_path / 'x')


def test_the_authors_names_are_known(authors18, tmp_path):
    folder = save_pretrained(authors18.state_dict(), tmp_path / 'authors')
    config = json.loads((folder / 'config.json').read_text())
    assert config['bnet']['layer1.0.bn2']['k'] == 5
    model = from_pretrained(folder, torchvision.models.resnet18()).eval()
    images = torch.randn(2, 3, 64, 64)
    stages = deepcopy(authors18).eval()(images)
    features = nn.Sequential(*list(model.children())[:-2])(images)
    torch.testing.assert_close(features, stages[-1])


def test_the_card_is_what_the_hub_reads_and_shows_strangers_text_as_text(tmp_path):
    strange = '<script>x</script> [a](http://b) `c` | d\n# e'
    folder = save_pretrained(
        {'state_dict': with_bnet().state_dict(), 'meta': {'note': strange[:40], 'cfg': strange}},
        tmp_path / 'card',
        license='apache-2.0',
        tags=['segmentation', 'bnet', 'quote " and: colon'],
        metrics={'box AP': 40.1, 'mask AP': 36},
        title='# A --- title',
    )
    text = (folder / 'README.md').read_text()
    _, head, body = text.split('---\n', 2)
    assert yaml.safe_load(head) == {
        'library_name': 'bnet_mm',
        'license': 'apache-2.0',
        'tags': ['bnet', 'batch-normalization', 'pytorch', 'segmentation', 'quote " and: colon'],
        'metrics': ['box AP', 'mask AP'],
    }
    for line in (
        '# \\# A --- title',
        '| box AP | 40.1 |',
        '| mask AP | 36 |',
        '| BNET, k = 3 | 1 ',
    ):
        assert line in body
    assert '| note | \\<script\\>x' in body
    assert '<script>' not in body and 'cfg' not in body  # a long text, or one of several lines
    # Nothing is claimed that was not given.
    text = (save_pretrained(with_bnet(), tmp_path / 'bare') / 'README.md').read_text()
    assert 'license' not in text and 'Metrics' not in text


def test_a_classifier_for_other_classes_is_kept_if_that_is_wanted(tmp_path):
    folder = save_pretrained(with_bnet(), tmp_path / 'x')
    with pytest.raises(InputError, match=r'size mismatch for fc\.'):
        from_pretrained(folder, Branch(classes=5))
    other = Branch(classes=5)
    before = other.fc.weight.detach().clone()
    with pytest.warns(UserWarning, match=r'has in other shapes 2 \(fc\.'):
        from_pretrained(folder, other, strict=False)
    assert torch.equal(other.fc.weight, before)
    assert torch.equal(other.conv.weight, from_pretrained(folder)['conv.weight'])
    with pytest.raises(InputError, match='has no tensor of this model'):
        from_pretrained(folder, nn.Sequential(nn.Linear(2, 2)), strict=False)
    with pytest.raises(InputError, match='3x3 kernels, the model k=5 at second'):
        from_pretrained(folder, with_bnet(k=5))


def test_what_is_there_is_kept_unless_forced(tmp_path):
    (tmp_path / 'README.md').write_text('precious')
    with pytest.raises(InputError, match=r'README\.md exists already and was kept'):
        save_pretrained(with_bnet(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ['README.md']
    save_pretrained(with_bnet(), tmp_path, force=True)
    assert 'precious' not in (tmp_path / 'README.md').read_text()
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot be a folder of files'):
        save_pretrained(with_bnet(), tmp_path / 'file')


def test_folders_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"'a/b/c' is no name on the Hub"):
        from_pretrained('a/b/c')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match=r'has no model\.safetensors'):
        from_pretrained(tmp_path / 'empty')
    (tmp_path / 'x.pth').write_text('')
    with pytest.raises(InputError, match='is a file, and a folder of save_pretrained is needed'):
        from_pretrained(tmp_path / 'x.pth')
    with pytest.raises(InputError, match=r'empty has no model\.safetensors: write it'):
        push_to_hub(tmp_path / 'empty', 'me/x')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)  # as if it were not installed
    for call in (
        lambda: from_pretrained('me/nowhere'),
        lambda: push_to_hub(save_pretrained(with_bnet(), tmp_path / 'whole'), 'me/x'),
    ):
        with pytest.raises(InputError, match=r'needs the package huggingface_hub: pip install'):
            call()


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        ('model.safetensors', b'', 'cannot be read'),
        ('model.safetensors', b'\xff' * 64, 'cannot be read'),
        ('model.safetensors', b'\x80\x02cos\nsystem\n(S"true"\ntR.', 'cannot be read'),
        ('config.json', b'{', 'is none of this package'),
        ('config.json', b'[' * 100000, 'is none of this package'),
        ('config.json', b'[]', 'is none of this package'),
        ('config.json', b'{"bnet": {"second": {"k": 4}}}', 'is none of this package'),
        ('config.json', b'{"bnet": {"second": {"k": "3"}}}', 'is none of this package'),
        ('config.json', b' ' * (1 << 23), 'is none of this package'),
        ('config.json', b'{"bnet": {"second": {"k": 5}}}', 'are not of the same network'),
        ('config.json', b'{"bnet": {"first": {"k": 3}}}', 'are not of the same network'),
    ],
)
def test_damaged_and_hostile_files_are_one_sentence(name, content, said, tmp_path):
    folder = save_pretrained(with_bnet(), tmp_path / 'x')
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        from_pretrained(folder, Branch())
    assert '\n' not in str(caught.value)


def test_a_folder_without_a_config_is_read(tmp_path):
    model = with_bnet(k=5, dilation=2)
    write_checkpoint({'state_dict': model.state_dict()}, tmp_path / 'model.safetensors')
    assert from_pretrained(tmp_path, Branch()).second.dilation == 2


def test_the_program_writes_a_folder(call_tool, tmp_path):
    torch.save({'state_dict': with_bnet().state_dict(), 'optimizer': {}}, tmp_path / 'x.pth')
    said = call_tool(
        *('publish_model.py', 'x.pth', 'mine', '--hub', '--license', 'mit'),
        *('--metric', 'box AP=40.1', '--metric', 'AP=50=3'),
        check=True,
    ).stdout.splitlines()
    assert said == ['left out, state of the training: optimizer', 'mine']
    card = (tmp_path / 'mine/README.md').read_text()
    assert '| box AP | 40.1 |' in card and '| AP=50 | 3 |' in card and '# mine' in card
    for wrong, why in (
        (['x.pth', 'mine', '--hub'], 'exists already and was kept'),
        (['x.pth', 'y.pth', '--license', 'mit'], 'are for the card that --hub writes'),
        (['x.pth', 'other', '--hub', '--metric', 'AP'], "'AP' is not NAME=VALUE"),
    ):
        refused = call_tool('publish_model.py', *wrong)
        assert refused.returncode == 2
        assert why in refused.stderr


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's interface as one upload and one download of small files use."""

    files: dict[str, bytes]
    commit = 'c' * 40

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        if self.path.endswith('/repos/create'):
            return self.answer({'url': self.address('me/net')})
        if '/validate-yaml' in self.path:
            return self.answer({'warnings': [], 'errors': []})
        if '/preupload/' in self.path:
            modes = [
                {'path': file['path'], 'uploadMode': 'regular', 'shouldIgnore': False}
                for file in json.loads(body)['files']
            ]
            return self.answer({'files': modes})
        if '/commit/' in self.path:
            for line in map(json.loads, body.splitlines()):
                if line['key'] == 'file':
                    content = base64.b64decode(line['value']['content'])
                    self.files[line['value']['path']] = content
            commit = {'commitUrl': self.address('me/net/commit/main'), 'commitOid': self.commit}
            return self.answer(commit)
        return self.answer({'error': 'no such thing'}, 404)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        name = self.path.rpartition('/')[2]
        if '/api/models/me/net/tree/' in self.path:
            entries = [
                {
                    'type': 'file',
                    'path': path,
                    'size': len(content),
                    'oid': hashlib.sha1(content).hexdigest(),
                }
                for path, content in self.files.items()
            ]
            return self.answer(entries)
        if self.path.startswith('/api/models/me/net'):
            siblings = [{'rfilename': path} for path in self.files]
            return self.answer({'id': 'me/net', 'sha': self.commit, 'siblings': siblings})
        if self.path.startswith('/me/net/resolve/') and name in self.files:
            return self.answer(self.files[name])
        return self.answer({'error': 'Repository not found'}, 404)

    def answer(self, content, code=200):
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header('Content-Length', str(len(raw)))
        self.send_header('X-Repo-Commit', self.commit)
        self.send_header('ETag', f'"{hashlib.sha1(raw).hexdigest()}"')
        if code == 404:
            self.send_header('X-Error-Code', 'RepoNotFound')
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(raw)

    def address(self, path: str) -> str:
        return f'http://127.0.0.1:{self.server.server_port}/{path}'

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server of this machine in the place of the Hub; its files."""
    pytest.importorskip('huggingface_hub')
    from huggingface_hub import constants

    handler = type('OwnHub', (Hub,), {'files': {}})
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    template = address + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    yield handler.files
    server.shutdown()
    server.server_close()


def test_a_folder_goes_to_a_hub_and_comes_back(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = with_bnet(k=5, dilation=2)
    folder = save_pretrained(model, tmp_path / 'mine', 'mit')
    (folder / 'secret.txt').write_text('not to be uploaded')
    assert push_to_hub(folder, 'me/net', token='hf_of_nobody').endswith('me/net/commit/main')
    assert hub == {name: (folder / name).read_bytes() for name in hub}
    assert set(hub) == {'README.md', 'config.json', 'model.safetensors'}

    back = from_pretrained('me/net', Branch(), cache_dir=tmp_path / 'cache')
    assert same(model.state_dict(), back.state_dict())
    with pytest.raises(InputError, match='there is no folder you/net, and the Hub gave none') as e:
        from_pretrained('you/net', cache_dir=tmp_path / 'cache')
    assert '\n' not in str(e.value)
