"""The gaps of upstream releases stay closed."""

from __future__ import annotations

import functools
import os
import pickle
import stat
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer, MessageHub

import bnet_mm  # noqa: F401  (closes the gaps)
from bnet_mm.checkpoint import read_checkpoint
from bnet_mm.checkpoint.reading import TRUSTED
from bnet_mm.engine.checkpoint_hook import BACKEND
from bnet_mm.errors import InputError

READERS = [read_checkpoint]
if TRUSTED:  # else torch's default is to load anything, and no gap
    READERS.append(functools.partial(torch.load, weights_only=True))


@pytest.mark.parametrize('read', READERS)
def test_mmengines_log_history_loads(read, tmp_path):
    hub = MessageHub('test_compat')
    hub.update_scalar('train/loss', 2.0)
    hub.update_scalar('train/loss', 4.0)
    hub.update_info('best', np.float32(0.5))
    hub.update_info('count', np.int64(3))
    hub.update_info('array', np.arange(3))
    torch.save({'message_hub': hub.state_dict()}, tmp_path / 'x.pth')
    loaded = read(tmp_path / 'x.pth')['message_hub']
    assert loaded['log_scalars']['train/loss'].mean() == 3.0
    assert loaded['runtime_info']['best'] == 0.5
    assert HistoryBuffer([1.0], [1]).statistics('max') == 1.0


class AsksFor:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'hostile', [AsksFor(eval, '1 + 1'), AsksFor(getattr, dict, 'fromkeys'),
                AsksFor(getattr, HistoryBuffer, '__init__')],
)  # fmt: skip
def test_code_in_a_file_is_refused(tmp_path, hostile):
    torch.save({'x': hostile}, tmp_path / 'x.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'x.pth', weights_only=True)


def test_downloads_are_loaded_weights_only(tmp_path, monkeypatch):
    from mmengine.runner.checkpoint import CheckpointLoader

    import bnet_mm.engine.downloads  # noqa: F401  (what the tools import)

    torch.save({'x': AsksFor(eval, '1 + 1')}, tmp_path / 'x.pth')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    (tmp_path / 'x.pth').rename(tmp_path / 'hub/checkpoints/x.pth')
    # The file is in the cache already, so that nothing is downloaded.
    with pytest.raises(InputError, match='was refused: it asks for'):
        CheckpointLoader.load_checkpoint('https://localhost/x.pth', map_location='cpu')


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    backend = get_file_backend(backend_args=dict(backend=BACKEND))
    backend.put(b'old', tmp_path / 'new/x.pth')

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('os.fsync', killed)
        with pytest.raises(KeyboardInterrupt):
            backend.put(b'half', tmp_path / 'new/x.pth')
    assert [p.name for p in (tmp_path / 'new').iterdir()] == ['x.pth']
    assert (tmp_path / 'new/x.pth').read_bytes() == b'old'
    backend.put_text('whole', tmp_path / 'new/x.pth')
    assert (tmp_path / 'new/x.pth').read_text() == 'whole'
    (tmp_path / 'link.pth').symlink_to(tmp_path / 'new/x.pth')
    backend.put(b'through', tmp_path / 'link.pth')
    assert (tmp_path / 'link.pth').is_symlink()
    assert (tmp_path / 'new/x.pth').read_bytes() == b'through'
    assert stat.S_IMODE((tmp_path / 'new/x.pth').stat().st_mode) & 0o444


def test_mmaction_imports_from_its_own_wheel():
    code = """
import bnet_mm
import mmaction.models, mmaction.datasets, mmaction.engine
from mmaction.models.localizers import DRN
try:
    DRN()
except (ImportError, TypeError) as error:
    print(type(error).__name__, error)
"""
    printed = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], check=True, capture_output=True, text=True
    ).stdout
    assert 'open-mmlab/mmaction2#2714' in printed or printed.startswith('TypeError')


@pytest.mark.parametrize(
    ('gap', 'code', 'error'),
    [
        (
            'gaps.allow_mmengine_checkpoints',
            """
import io, numpy, torch, bnet_mm
from mmengine.logging import MessageHub
hub = MessageHub('test')
hub.update_scalar('train/loss', 2.0)
file = io.BytesIO()
torch.save(hub.state_dict(), file)
file.seek(0)
torch.load(file, weights_only=True)
""",
            'UnpicklingError',
        ),
        ('gaps.complete_mmaction', 'import bnet_mm, mmaction.models', 'localizers.drn'),
    ],
)
def test_the_gap_is_still_there_upstream(gap, code, error):
    """Where this fails, an installed release has mended it, and what closes it can go."""
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env={**os.environ, 'BNET_MM_COMPAT': '0'},
        capture_output=True,
        text=True,
    )
    assert run.returncode and error in run.stderr, f'upstream has mended it: remove {gap}'


def test_a_download_is_fetched_once_and_read(tmp_path, monkeypatch):
    from mmengine.runner.checkpoint import CheckpointLoader

    import bnet_mm.engine.downloads  # noqa: F401  (what the tools import)

    torch.save({'state_dict': {'w': torch.ones(2)}}, tmp_path / 'weights.pth')
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    url = f'http://127.0.0.1:{server.server_port}/weights.pth'
    for _ in range(2):  # the second time without a server
        loaded = CheckpointLoader.load_checkpoint(url, map_location='cpu')
        assert torch.equal(loaded['state_dict']['w'], torch.ones(2))
        server.shutdown()
    with pytest.raises(OSError, match=r'refused|404|timed out'):
        server.server_close()
        CheckpointLoader.load_checkpoint(url.replace('weights', 'none'), map_location='cpu')
    assert not (tmp_path / 'hub/checkpoints/none.pth').exists()
