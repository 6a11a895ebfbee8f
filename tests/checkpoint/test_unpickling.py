"""The restricted unpickler for old releases of torch, on every release."""

from __future__ import annotations

import argparse
import collections
import copyreg
import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from bnet_mm.checkpoint import reading
from bnet_mm.checkpoint.unpickling import pickle_module
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import storage_of


@pytest.fixture(autouse=True)
def not_trusted(monkeypatch):
    monkeypatch.setattr(reading, 'TRUSTED', False)


def written(contents, path, **options):
    torch.save(contents, path, **options)
    return reading.read_checkpoint(path)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_reads_what_trainings_write(zipped, protocol, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 2, 5, 5)).sum().backward()
    optimizer.step()
    base = torch.arange(10.0)
    contents = {
        'state_dict': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'parameter': torch.nn.Parameter(torch.ones(2)),
        'views': (base[2:5], base[::2]),
        'half': torch.ones(3, dtype=torch.bfloat16),
        'size': torch.Size([2, 3]),
        'dtype': torch.float16,
        'device': torch.device('cpu'),
        'args': argparse.Namespace(lr=0.1, betas=(0.9, 0.99)),
        'set': {1, 2},
        'ordered': collections.OrderedDict(a=1),
        'none': None,
    }
    found = written(
        contents, tmp_path / 'x.pth', pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    assert found.keys() == contents.keys()
    for name, value in contents['state_dict'].items():
        assert torch.equal(found['state_dict'][name], value)
    assert found['args'] == contents['args'] and found['dtype'] is torch.float16
    assert torch.equal(found['views'][1], base[::2])
    assert storage_of(found['views'][0]).data_ptr() == storage_of(found['views'][1]).data_ptr()
    assert str(found['optimizer']) == str(contents['optimizer'])


def test_reads_mmengines_records(tmp_path):
    logging = pytest.importorskip('mmengine.logging')
    import bnet_mm  # noqa: F401  (allows them)

    hub = logging.MessageHub(f'test_unpickling_{os.getpid()}')
    hub.update_scalar('train/loss', 2.0)
    hub.update_info('best', np.float32(0.5))
    hub.update_info('array', np.arange(3))
    found = written({'message_hub': hub.state_dict()}, tmp_path / 'x.pth')['message_hub']
    assert found['log_scalars']['train/loss'].mean() == 2.0
    assert found['runtime_info']['best'] == 0.5


class Calls:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


HOSTILE = {
    'system': (os.system, 'exit 1'),
    'eval': (eval, '1'),
    'getattr': (getattr, dict, 'fromkeys'),
    'import': (__import__, 'os'),
    'load': (torch.load, 'x.pth'),
    'load from bytes': (torch.storage._load_from_bytes, b'x'),
    'hub': (torch.hub.load, 'x', 'y'),
    'jit': (torch.jit.load, 'x'),
    'compile': (compile, '1', 'x', 'eval'),
    'partial': (__import__('functools').partial, print),
    'attrgetter': (__import__('operator').attrgetter, '__class__'),
    'library': (np.load, 'x.npy'),
}


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('kind', HOSTILE)
def test_code_is_refused(kind, zipped, tmp_path):
    with pytest.raises(InputError, match='was refused: it asks for'):
        written(
            {'x': Calls(*HOSTILE[kind])}, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped
        )


def refused(pickled: bytes) -> str:
    with pytest.raises(pickle.UnpicklingError) as error:
        pickle_module([argparse.Namespace]).load(io.BytesIO(pickled))
    return str(error.value)


def test_no_state_is_set_on_what_is_everybodys():
    names = b'cargparse\nNamespace\n'
    # Of the class itself; of a function; and of a tensor.
    assert 'state was given to a type' in refused(names + b'}(X\x01\x00\x00\x00aI1\nub.')
    function = b'ctorch._utils\n_rebuild_tensor_v2\n'
    assert 'given to a function' in refused(function + b'}(X\x01\x00\x00\x00aI1\nub.')
    assert 'of another kind' in refused(names + b')\x81N}(X\x01\x00\x00\x00aI1\nu\x86b.')


def test_names_by_number_and_codecs_are_refused():
    copyreg.add_extension('os', 'system', 240)
    try:
        assert 'number' in refused(b'\x80\x02\x82' + struct.pack('B', 240) + b'.')
    finally:
        copyreg.remove_extension('os', 'system', 240)
    assert '_codecs.encode' in refused(b'c_codecs\nencode\n(Vx\nVzip\ntR.')
    assert 'storage' in refused(b'Px\n.')
