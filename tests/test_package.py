"""What importing and installing the package brings along."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def printed(code: str) -> str:
    return subprocess.run(
        [sys.executable, '-c', code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_importing_the_package_imports_no_library():
    code = """
import mmengine, mmcv, sys
import bnet_mm
print([m for m in ('mmdet', 'mmseg', 'mmaction', 'mmpretrain', 'torchvision') if m in sys.modules])
"""
    assert printed(code) == '[]'


def test_layer_runs_with_torch_alone():
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmengine', 'mmcv', 'mmdet', 'numpy'):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == 'mmengine' else find_spec(name, *a)
import torch, bnet_mm
print(bnet_mm.BNET(4, k=3)(torch.randn(2, 4, 5, 5)).shape, 'mmengine' in sys.modules)
"""
    assert printed(code) == 'torch.Size([2, 4, 5, 5]) False'


@pytest.mark.parametrize(
    ('library', 'first', 'plain'),
    [
        ('mmdet', 'bnet_mm', 'Res2Net'),
        ('mmdet', 'mmdet.registry', 'Res2Net'),
        ('mmdet', 'mmdet.models', 'Res2Net'),
        ('mmseg', 'mmseg.models', 'ResNeSt'),
        ('mmaction', 'mmaction.registry', 'C2D'),
    ],
)
def test_places_whatever_was_imported_first_and_replaces_nothing(library, first, plain):
    code = f"""
import {first}
import bnet_mm
from {library}.registry import MODELS
net = dict(type='ResNet', depth=18) | (dict(pretrained=None) if '{library}' == 'mmaction' else {{}})
for norm_cfg in (dict(type='BNET', k=5), dict(type='BN')):
    norms = [m for m in MODELS.build(dict(net, norm_cfg=norm_cfg)).modules()]
    print(sum(isinstance(m, bnet_mm.BNET) for m in norms))
print(MODELS.get('ResNet').__module__, MODELS.get('{plain}').__module__)
"""
    placed, none, *classes = printed(code).split()[-4:]
    assert (placed, none) == ('8', '0')
    assert classes == [f'{library}.models.backbones.{name.lower()}' for name in ('resnet', plain)]


def test_wheel_holds_configs_and_tools_where_mim_looks(tmp_path):
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w',
         str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
        env={**os.environ, 'BNET_KERNELS': '0'},  # a minute; the environment has them compiled
    )  # fmt: skip
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / 'site')
    for name in (
        'bnet_mm/.mim/configs/faster_rcnn_r50_bnet5_fpn_1x.py',
        'bnet_mm/.mim/configs/metafiles/faster_rcnn.yml',
        'bnet_mm/analysis/paper_costs.yml',
        'bnet_mm/.mim/tools/train.py',
        'bnet_mm/.mim/tools/dist_train.sh',
        'bnet_mm/.mim/model-index.yml',
        'bnet_mm/demo/layouts.py',
    ):
        assert name in names
    assert not any(name.startswith('tests') for name in names)
    (entry_points,) = (tmp_path / 'site').glob('*.dist-info/entry_points.txt')
    assert 'bnet = bnet_command:main' in entry_points.read_text()
    # The command finds the programs of the wheel, from anywhere.
    code = "import bnet_command as c, sys; print(c.load('inspect').__file__); sys.argv[0] = 'bnet'"
    result = subprocess.run(
        [sys.executable, '-c', f'{code}; c.main()', 'inspect', '--help'],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')},
    )
    file, usage = result.stdout.splitlines()[:2]
    assert file == str(tmp_path / 'site/bnet_mm/.mim/tools/inspect_checkpoint.py')
    assert usage.startswith('usage: bnet inspect ')


WALK = """
import sys, types, warnings
warnings.simplefilter('ignore')

def walk():
    '''Every function and class of every module, and everything in the classes.'''
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition('.')[0] in ('bnet_mm', '__main__'):
            continue
        for key, value in list(getattr(module, '__dict__', {}).items()):
            # Not isinstance: stand-ins that import something when they are asked become that.
            if issubclass(type(value), (type, types.FunctionType, types.BuiltinFunctionType)):
                found[name, key] = value
            if issubclass(type(value), type) and value.__module__ == name:
                for attribute, part in list(vars(value).items()):
                    if callable(part) or isinstance(part, (property, classmethod, staticmethod)):
                        found[name, key, attribute] = part
    return found
"""


@pytest.mark.parametrize('library', ['mmcv', 'mmdet.models', 'mmpretrain.models'])
def test_importing_replaces_no_function_class_or_method(library):
    code = f"""
{WALK}
import torch, torchvision, mmengine, mmcv, mmengine.runner, mmengine.registry, {library}
import torch.nn.parallel, torch.utils.checkpoint, torch.onnx
names = {{(r.scope, r.name): dict(r.module_dict) for r in vars(mmengine.registry).values()
         if isinstance(r, mmengine.registry.Registry)}}
before = walk()
import bnet_mm
after = walk()
print('gone or replaced:', [k for k, value in before.items() if after.get(k) is not value])
for r in vars(mmengine.registry).values():
    if isinstance(r, mmengine.registry.Registry):
        for name, module in names[r.scope, r.name].items():
            assert r.module_dict[name] is module, name
print('walked', len(before) > 30000)
"""
    lines = printed(code).splitlines()[-2:]
    assert lines == ['gone or replaced: []', 'walked True']


def test_torch_alone_is_all_that_the_layers_import():
    code = """
import sys
from importlib import util
find_spec = util.find_spec
util.find_spec = lambda name, *a: None if name == 'mmengine' else find_spec(name, *a)
import torch
before = set(sys.modules)
import bnet_mm
new = {name.partition('.')[0] for name in set(sys.modules) - before}
new -= {'torch', *sys.stdlib_module_names}
print(sorted(name for name in new if not name.startswith('_sysconfig')))
"""
    assert printed(code) == "['bnet_mm']"


def test_a_name_that_is_taken_stays_its_owners():
    code = """
import warnings
from mmengine.registry import HOOKS, MODELS
@MODELS.register_module()
class FReLU:
    pass
@HOOKS.register_module()
class BNETVisHook:
    pass
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter('always')
    import bnet_mm
print(MODELS.get('FReLU') is FReLU, HOOKS.get('BNETVisHook') is BNETVisHook)
print(MODELS.get('BNET') is bnet_mm.BNET)
print(sorted(str(w.message).split(' and ')[0] for w in said if 'stays that' in str(w.message)))
"""
    kept, ours, said = printed(code).splitlines()[-3:]
    assert (kept, ours) == ('True True', 'True')
    assert said == (
        "[\"'BNETVisHook' is registered in 'hook' by __main__\", "
        "\"'FReLU' is registered in 'model' by __main__\"]"
    )
