"""Dilation is part of a checkpoint: networks that differ in it do not load into one another."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
import torchvision
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

import bnet_mm
from bnet_mm import BNET
from bnet_mm.checkpoint import contents_of, convert, read_checkpoint, verify, write_checkpoint
from bnet_mm.errors import InputError
from bnet_mm.reports.checkpoints import conversion_tables, use_it


def network(dilation, k=3, seed=0):
    torch.manual_seed(seed)
    model = bnet_mm.enhance(torchvision.models.resnet18(), k=k, dilation=dilation)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, BNET):
                module.dw.weight.normal_()
                module.norm.running_mean.normal_()
    return model


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize(('theirs', 'ours'), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_another_dilation_is_refused_and_changes_no_kernel(theirs, ours):
    state, model = saved(network(theirs).state_dict()), network(ours, seed=1)
    before = copy.deepcopy(model.layer1[0].bn2.dw.state_dict())
    for strict in (True, False):
        with pytest.raises(
            RuntimeError, match=f'kernels of dilation {theirs}, the model of dilation {ours}'
        ):
            model.load_state_dict(state, strict=strict)
    for name, value in model.layer1[0].bn2.dw.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize('dilation', [1, 2])
def test_the_same_dilation_loads_strictly_and_without_a_word(dilation):
    model = network(dilation)
    other = network(dilation, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        other.load_state_dict(saved(model.state_dict()))
        if dilation != 1:  # the tensor is enough
            other.load_state_dict(dict(saved(model.state_dict())))
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(model.eval()(x), other.eval()(x))


def test_names_are_as_before_without_dilation_and_with_kernels_of_one_tap():
    plain = BNET(4, k=3).state_dict()
    assert 'dw.dilation' not in plain and 'dw.dilation' in BNET(4, k=3, dilation=2).state_dict()
    assert 'dw.dilation' not in BNET(4, k=1, dilation=2).state_dict()
    BNET(4, k=1, dilation=2).load_state_dict(BNET(4, k=1).state_dict())


def test_files_that_say_nothing_load_and_that_is_said():
    layer = BNET(4, k=3, dilation=2)
    torch.nn.init.normal_(layer.dw.weight)
    old = {name: v for name, v in layer.state_dict().items() if name != 'dw.dilation'}
    with pytest.warns(UserWarning, match="does not say the dilation.*this network's, 2"):
        assert not any(layer.load_state_dict(old))
    BNET(4, k=3).load_state_dict(old)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        layer.load_state_dict(torch.nn.BatchNorm2d(4).state_dict())  # Dirac in any dilation


def test_something_else_in_its_place():
    for value in (torch.ones(3), torch.tensor(2.0), torch.tensor(-1)):
        state = {**BNET(4, k=3, dilation=2).state_dict(), 'dw.dilation': value}
        with pytest.raises(RuntimeError, match='kernels of dilation'):
            BNET(4, k=3, dilation=2).load_state_dict(state)


@pytest.mark.parametrize(('theirs', 'ours'), [(1, 2), (2, 1)])
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.'])
@pytest.mark.parametrize('library', ['mmdet', 'mmaction'])
def test_openmmlabs_loader(library, prefix, theirs, ours, tmp_path):
    __import__(f'{library}.models')
    extra = dict(pretrained=None) if library == 'mmaction' else {}
    cfg = dict(type=f'{library}.ResNet', depth=18, **extra)
    source, target = (
        MODELS.build({**cfg, **dict(norm_cfg=dict(type='BNET', k=3, dilation=d))})
        for d in (theirs, ours)
    )
    for module in source.modules():
        if isinstance(module, BNET):
            torch.nn.init.normal_(module.dw.weight)
    state = source.state_dict()
    for name in list(state):
        state[prefix + name] = state.pop(name)
    state._metadata = type(state._metadata)(
        (prefix + name, value) for name, value in state._metadata.items()
    )
    torch.save({'state_dict': state}, tmp_path / 'weights.pth')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        try:
            load_checkpoint(target, str(tmp_path / 'weights.pth'), map_location='cpu')
        except InputError as error:
            assert f'of dilation {theirs}, the model of dilation {ours}' in str(error)
        else:  # the loader has dropped what was said with the names it changed
            assert any('does not say the dilation' in str(w.message) for w in said)


@pytest.mark.parametrize('to', ['mmdet', 'mmaction', 'torchvision'])
def test_the_converter_keeps_it_prints_it_and_proves_it(to, tmp_path):
    source = network(2).state_dict()
    contents = contents_of({'state_dict': dict(source)})
    conversion = convert(contents, to=to)
    tables = list(conversion_tables(conversion))
    assert any('BNET k=3 dilation 2' in str(getattr(t, 'rows', t)) for t in tables)
    assert 'dilation' in use_it(conversion, tmp_path / 'x.pth')
    assert all(stage.equal for stage in verify(contents.state, conversion))
    for name in ('x.pth', 'x.safetensors'):
        path = write_checkpoint({'state_dict': conversion.state}, tmp_path / name)
        again = convert(contents_of(read_checkpoint(path)), to='torchvision')
        network(2, seed=1).load_state_dict(again.state, strict=False)
        with pytest.raises(RuntimeError, match='dilation 2, the model of dilation 1'):
            network(1).load_state_dict(again.state, strict=False)
    # What it proves is of the dilation, too.
    contents.state.update({n: torch.tensor(3) for n in contents.state if n.endswith('.dilation')})
    assert not all(stage.equal for stage in verify(contents.state, conversion))


def test_the_converter_refuses_what_has_no_place_or_no_sense():
    state = dict(network(2).state_dict())
    with pytest.raises(InputError, match='network has no dilation'):
        convert(contents_of({'state_dict': state}), to='authors')
    state['layer1.0.bn2.dw.dilation'] = torch.tensor(0)
    with pytest.raises(InputError, match='a dilation is a positive integer'):
        convert(contents_of({'state_dict': state}), to='mmdet')
