"""Blocks with their end in one pass against their libraries' own forward."""

from __future__ import annotations

import copy
import pickle
from importlib import import_module

import pytest
import torch
from mmdet.models.backbones.resnet import BasicBlock
from mmengine.registry import MODELS
from torch import nn

from bnet_mm.layers import BNET, EnhancedNorm
from bnet_mm.models.residual_blocks import JoinedEnd, join_ends, split_ends

LIBRARIES = ['mmdet', 'mmseg', 'mmpretrain', 'mmaction']


def backbone(library: str, norm: str = 'BNET', depth: int = 50, **options) -> nn.Module:
    import_module(f'{library}.models')
    torch.manual_seed(0)
    if library != 'mmaction':
        options['base_channels'] = 8
        if library in ('mmdet', 'mmseg'):
            options['norm_eval'] = False
    with MODELS.switch_scope_and_registry(library) as registry:
        model = registry.build(
            dict(
                type='ResNet',
                depth=depth,
                norm_cfg=dict(type=norm, k=3) if norm != 'BN' else dict(type='BN'),
                **options,
            )
        )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, EnhancedNorm):
                module.dw.weight.add_(0.2 * torch.randn_like(module.dw.weight))
                module.dw.bias.normal_()
    join_ends(model)
    model.train()  # which returns nothing in mmdet
    return model


def stock(model: nn.Module) -> nn.Module:
    """Returns a copy whose blocks run their library's forward."""
    return split_ends(copy.deepcopy(model))


def ends(model: nn.Module) -> list[JoinedEnd]:
    return [block for block in model.modules() if isinstance(block, JoinedEnd)]


def results(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    outputs = model(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    outputs[-1].square().mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*outputs, *gradients, *(b.double() for b in model.buffers())]


@pytest.mark.parametrize('training', [True, False], ids=['batch', 'frozen'])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('library', LIBRARIES)
def test_outputs_gradients_and_statistics_are_the_librarys(library, depth, training):
    model = backbone(library, depth=depth).double()
    model.train(training)
    assert len(ends(model)) == {18: 8, 50: 16}[depth]
    other = stock(model)
    assert not ends(other)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for a, b in zip(results(model, x), results(other, x)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_the_end_is_one_call(monkeypatch):
    calls = []
    once = BNET.end_of_block
    monkeypatch.setattr(BNET, 'end_of_block', lambda *args: calls.append(args[0]) or once(*args))
    model = backbone('mmdet')
    x = torch.randn(1, 3, 64, 64)
    model(x)
    assert len(calls) == 16
    # Whoever looks at what is passed over, or wants the library's code, gets it.
    calls.clear()
    seen = []
    block = model.layer1[0]
    block.relu.register_forward_hook(lambda *_: seen.append('relu'))
    model(x)
    assert (len(calls), seen) == (15, ['relu'] * 3)
    model.layer2[0].bn3.register_forward_hook(lambda m, i, o: seen.append(o))
    model(x)
    assert isinstance(seen[-1], torch.Tensor) and (seen[-1] < 0).any()


def test_other_models_keep_their_blocks():
    assert not ends(backbone('mmdet', norm='BN'))
    plugged = backbone(
        'mmdet',
        plugins=[
            dict(
                cfg=dict(type='ContextBlock', ratio=1 / 4),
                stages=(False, True, False, False),
                position='after_conv3',
            )
        ],
    )
    assert not ends(plugged)


def test_copies_pickles_and_compiled_models():
    model = backbone('mmdet', depth=18)
    model.eval()
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert len(ends(other)) == len(ends(model)) == 8
        assert list(other.state_dict()) == list(model.state_dict())
        for a, b in zip(other(x), expected):
            assert torch.equal(a, b)
        nn.init.zeros_(other.layer1[0].bn2.dw.weight)  # its own, nobody else's
        assert not torch.equal(other(x)[0], expected[0])
        assert torch.equal(model(x)[0], expected[0])
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(model.layer1), backend='aot_eager', fullgraph=True)
    features = torch.randn(1, 8, 16, 16)
    torch.testing.assert_close(compiled(features), model.layer1(features), rtol=1e-4, atol=1e-4)


def test_checkpointed_blocks():
    model = backbone('mmdet', with_cp=True)
    other = stock(model)
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    for a, b in zip(results(model, x), results(other, x)):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_what_is_put_in_later_is_seen():
    model = backbone('mmdet', depth=18)
    model.eval()
    x = torch.randn(1, 3, 64, 64)
    block = model.layer1[0]
    for name, part in (('relu', nn.GELU()), ('bn2', nn.BatchNorm2d(8).eval())):
        setattr(block, name, part)
        for a, b in zip(model(x), stock(model)(x)):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert len(ends(join_ends(model))) == 8  # again, and nothing more
    seen = []
    model.layer2[0].relu = nn.ReLU()  # torch's hooks want one that is not in place
    model.layer2[0].relu.register_full_backward_hook(lambda *_: seen.append('relu'))
    model(x)[-1].sum().backward()
    assert len(seen) == 2


def test_back_to_the_librarys_class():
    model = backbone('mmdet', depth=18)
    block = model.layer1[0]
    assert type(block) is not BasicBlock and isinstance(block, BasicBlock)
    assert type(split_ends(model).layer1[0]) is BasicBlock
    assert repr(model) == repr(join_ends(model)) and len(ends(model)) == 8
