"""Conversions: every layout in, every layout out, and the function that the tensors carry."""

from __future__ import annotations

import copy
import sys

import pytest
import timm
import torch
import torchvision
from authors import AuthorsNetwork, older_names, randomize, stages_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from test_cifar import ResNet20

import bnet_mm
from bnet_mm.checkpoint import contents_of, convert, verify, write_checkpoint
from bnet_mm.checkpoint.layouts import detect_layout
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import storage_of
from bnet_mm.reports.checkpoints import use_it
from bnet_mm.text import without_prefix

LIBRARIES = ['mmdet', 'mmseg', 'mmaction', 'mmpretrain']


def converted(state, **kwargs):
    return convert(contents_of({'state_dict': dict(state)}), **kwargs)


def build(library, norm_cfg=None, type='ResNet', depth=18, **kwargs):
    __import__(f'{library}.models')
    if library == 'mmaction':
        kwargs['pretrained'] = None
    return MODELS.build(
        dict(
            type=f'{library}.{type}',
            depth=depth,
            out_indices=(0, 1, 2, 3),
            norm_cfg=norm_cfg or dict(type='BN'),
            **kwargs,
        )
    )


def outputs(net, images):
    net.eval()
    with torch.no_grad():
        return net(images)


def assert_same(ours, theirs, tolerance=1e-9):
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_the_authors_network_in_every_library(library, dtype, tolerance, authors18, images):
    backbone = build(library, dict(type='BNET', k=5))
    backbone.load_state_dict(converted(authors18.state_dict(), to=library).state)
    theirs = copy.deepcopy(authors18).to(dtype)
    ours = outputs(backbone.to(dtype), images.to(dtype))
    assert_same(ours, outputs(theirs, images.to(dtype)), tolerance)


@pytest.mark.parametrize('k', [3, 5, 7])
@pytest.mark.parametrize('depth', [50, 101])
def test_the_authors_bottlenecks(depth, k, authors_network, images):
    theirs = authors_network(depth, k).double()
    found = converted(theirs.state_dict(), to='mmdet')
    assert found.architecture.depth == depth
    assert set(found.kernels.values()) == {k}
    backbone = build('mmdet', dict(type='BNET', k=k), depth=depth).double()
    backbone.load_state_dict(found.state)
    small = images[:1, :, :33, :49].double()
    assert_same(outputs(backbone, small), outputs(theirs, small))


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.', 'module.backbone.'])
@pytest.mark.parametrize('names', [dict, older_names])
def test_prefixes_and_the_authors_older_names(prefix, names, authors18):
    plain = converted(authors18.state_dict()).state
    state = names({prefix + key: value for key, value in authors18.state_dict().items()})
    found = converted(state)
    assert found.layout.kernels == ('authors' if names is dict else 'authors-old')
    assert found.layout.prefix == prefix
    assert found.state.keys() == plain.keys()
    assert all(torch.equal(found.state[key], plain[key]) for key in plain)


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.'])
@pytest.mark.parametrize('naming', ['authors', 'timm', 'mmaction', 'mmpretrain', 'openmmlab'])
def test_a_layout_names_tensors_in_both_directions(naming, prefix, authors18):
    networks = {
        'authors': lambda: authors18,
        'timm': lambda: timm.create_model('resnet18d'),
        'mmaction': lambda: build('mmaction', dict(type='BNET', k=3)),
        'mmpretrain': lambda: build('mmpretrain', dict(type='BNET', k=3), 'ResNetV1d'),
        'openmmlab': lambda: build('mmseg', dict(type='BNET', k=3), 'ResNetV1d'),
    }
    keys = below(prefix, networks[naming]())
    layout = detect_layout(keys)
    assert naming in (layout.naming, layout.kernels)
    names = layout.to_common(keys)
    assert len(names) == len({key for key in keys if '.fc.' not in f'.{key}'})
    assert all(layout.from_common(name) == key for key, name in names.items())


@pytest.mark.parametrize('source', LIBRARIES)
@pytest.mark.parametrize('target', LIBRARIES)
def test_batch_norm_of_one_library_is_bnet_in_another(source, target, images):
    theirs = randomize(build(source)).double()
    found = converted(below('backbone.', theirs), to=target, k=3)
    assert not found.source_kernels
    assert set(found.kernels.values()) == {3}
    backbone = build(target, dict(type='BNET', k=3)).double()
    backbone.load_state_dict(found.state)
    assert_same(outputs(backbone, images.double()), outputs(theirs, images.double()))


def below(prefix, net):
    return {prefix + key: value for key, value in net.state_dict().items()}


@pytest.mark.parametrize(
    ('network', 'source', 'target'),
    [
        (dict(type='ResNetV1c'), 'mmseg', 'mmpretrain'),
        (dict(type='ResNetV1c', depth=50), 'mmpretrain', 'mmseg'),
        (dict(type='ResNetV1d'), 'mmdet', 'mmseg'),
        (dict(type='ResNetV1d', depth=50), 'mmseg', 'mmdet'),
        (dict(type='ResNeXt', depth=50, groups=32), 'mmdet', 'mmseg'),
        (dict(type='ResNeXt', depth=50, groups=32), 'mmpretrain', 'mmdet'),
        (dict(base_channels=16, stem_channels=16), 'mmseg', 'mmdet'),
    ],
)
def test_deep_stems_groups_and_widths(network, source, target, images):
    theirs = randomize(build(source, **network)).double()
    found = converted(below('backbone.', theirs), to=target, k=3)
    backbone = build(target, dict(type='BNET', k=3), **network).double()
    backbone.load_state_dict(found.state)
    small = images[:, :, :33, :49].double()
    assert_same(outputs(backbone, small), outputs(theirs, small))
    contents = contents_of({'state_dict': below('backbone.', theirs)})
    assert all(stage.equal for stage in verify(contents.state, found))


@pytest.mark.parametrize(
    'name', ['resnet18', 'resnet50', 'resnet18d', 'resnet50d', 'resnext50_32x4d']
)
def test_timm_networks(name, images):
    theirs = randomize(timm.create_model(name, features_only=False)).double()
    found = converted(theirs.state_dict(), to='mmdet', k=5)
    assert found.dropped == {'fc.weight': 'the classifier', 'fc.bias': 'the classifier'}
    type = 'ResNeXt' if 'next' in name else 'ResNetV1d' if name.endswith('d') else 'ResNet'
    options = dict(groups=32) if 'next' in name else {}
    depth = 18 if '18' in name else 50
    backbone = build('mmdet', dict(type='BNET', k=5), type, depth, **options).double()
    backbone.load_state_dict(found.state)
    with torch.no_grad():
        expected = theirs.forward_intermediates(images.double(), intermediates_only=True)[1:]
    assert_same(outputs(backbone, images.double()), expected)


def test_torchvision_both_ways(images):
    theirs = randomize(torchvision.models.resnet18()).double()
    found = converted(theirs.state_dict(), to='torchvision', what='model', k=5)
    ours = bnet_mm.enhance(torchvision.models.resnet18(), k=5).double().eval()
    ours.load_state_dict(found.state)
    with torch.no_grad():
        torch.testing.assert_close(ours(images.double()), theirs(images.double()))
        assert_same(stages_of(ours, images.double()), stages_of(theirs, images.double()))
    back = converted(found.state, to='torchvision', what='model', k=1)
    assert_same_tensors(back.state, theirs.state_dict())


def assert_same_tensors(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value), name


@pytest.fixture(scope='module')
def network_of():
    """Builds small networks of random depth, width and kernel size, as state dicts."""

    def build(depth, k, seed):
        torch.manual_seed(seed)
        net = AuthorsNetwork(depth, k) if k else torchvision.models.resnet18()
        return randomize(net, seed).state_dict()

    return build


@settings(max_examples=15, deadline=None)
@given(
    k=st.sampled_from([None, 1, 3, 5]),
    path=st.lists(st.sampled_from([*LIBRARIES, 'torchvision', 'authors']), min_size=1, max_size=4),
    prefix=st.sampled_from(['', 'module.', 'backbone.']),
    larger=st.sampled_from([None, 5, 7]),
    seed=st.integers(0, 3),
)
def test_any_way_round_gives_the_same_tensors(network_of, k, path, prefix, larger, seed):
    assume(k != 1 or larger is None)  # on the way back it would become plain batch norm
    theirs = network_of(18, k, seed)
    there = {prefix + name: value for name, value in theirs.items()}
    for to in path:
        there = converted(there, to=to, k=larger).state
    names = 'authors' if k else 'torchvision'
    back = converted(there, to=names, k=(k or 1) if larger else None).state
    assert_same_tensors(back, {n: v for n, v in theirs.items() if not n.startswith('fc.')})


def test_a_whole_model_keeps_its_other_parts(authors18):
    state = {
        **below('backbone.', authors18),
        **{
            'neck.conv.weight': torch.ones(2),
            'backbone.fc.weight': torch.ones(2),
        },
    }
    state = {key: value for key, value in state.items() if not key.startswith('backbone.fc')}
    found = converted(state, what='model')
    assert 'neck.conv.weight' in found.state
    assert 'backbone.layer1.0.bn2.dw.weight' in found.state
    assert converted(state).dropped == {'neck.conv.weight': 'not of the backbone'}
    theirs = converted(found.state, what='model', to='authors')
    assert_same_tensors(theirs.state, state)


@pytest.mark.parametrize(
    ('to', 'name'),
    [('mmpretrain', 'head.fc'), ('mmaction', 'cls_head.fc_cls'), ('torchvision', 'fc')],
)
def test_the_classifier_has_a_place_in_each_model(to, name, authors18):
    found = converted(below('module.', authors18), to=to, what='model')
    assert torch.equal(found.state[f'{name}.weight'], authors18.fc.weight)
    assert found.unexplained == []
    detector = converted(below('module.', authors18), to='mmdet', what='model')
    assert set(detector.dropped) == {'module.fc.weight', 'module.fc.bias'}


def test_a_larger_kernel_computes_the_same_and_a_smaller_one_is_refused(authors18):
    state = authors18.state_dict()
    larger = converted(state, k=7)
    assert all(stage.equal for stage in verify(state, larger))
    assert_same_tensors(converted(larger.state, k=5).state, converted(state).state)
    with pytest.raises(InputError, match='5x5 kernel whose outer taps are not zero'):
        converted(state, k=3)


def test_bnet_with_one_tap_is_batch_norm(authors_network, images):
    state = authors_network(18, 1).state_dict()
    found = converted(state, k=1)
    assert found.kernels == {}
    backbone = build('mmdet').double()
    backbone.load_state_dict(found.state)
    theirs = outputs(authors_network(18, 1).double(), images.double())
    assert_same(outputs(backbone, images.double()), theirs)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept_and_said(dtype, authors18):
    state = {
        key: value.to(dtype) * (1 + 1e-8) if value.is_floating_point() else value
        for key, value in authors18.state_dict().items()
    }
    found = converted(state)
    assert found.state['layer1.0.bn2.dw.weight'].dtype == dtype
    assert without_prefix(str(dtype), 'torch.') in found.notes[0]
    assert all(stage.equal for stage in verify(state, found))


def without(state, *names):
    return {key: value for key, value in state.items() if key not in names}


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda s: without(s, 'layer2.0.conv1.weight'), '1 tensors are missing'),
        (lambda s: without(s, 'layer3.1.bnet2.bnconv.bias'), r'layer3\.1\.bn2\.dw\.bias'),
        (lambda s: without(s, 'conv1.weight'), 'no convolution weight of stem'),
        (lambda s: without(s, 'layer4.0.downsample.0.weight'), r'layer4\.0\.downsample\.0'),
        (lambda s: {k: v for k, v in s.items() if not k.startswith('layer4')}, 'incomplete'),
        (lambda s: {k: v for k, v in s.items() if not k.startswith('layer4.1')}, 'incomplete'),
        (lambda s: {**s, 'layer1.0.se.fc.weight': torch.ones(1)}, r'hold layer1\.0\.se\.fc'),
        (lambda s: {**s, 'layer1.0.bn7.weight': torch.ones(1)}, r'no place .* layer1\.0\.bn7'),
        (lambda s: {**s, 'stem.9.weight': torch.ones(1)}, r'no place .* stem\.9'),
        (lambda s: {**s, 'layer2.0.conv1.weight': torch.ones(())}, 'is not a convolution'),
        (lambda s: {**s, 'layer1.0.bn7.dw.weight': torch.ones(())}, 'no place'),
        (lambda s: {**s, 'bn1.weight': torch.ones(3)}, r'bn1\.weight has shape \(3,\)'),
        (lambda s: {**s, 'conv1.weight': s['conv1.weight'].int()}, 'quantized'),
        (lambda s: {**s, **{'net.' + k: v for k, v in s.items()}}, 'several residual networks'),
        (lambda s: {'a': torch.ones(1)}, 'no residual network was found'),
        (lambda s: {**s, 'layer1.0.bn2.weight': torch.ones(64)}, 'two norms for one place'),
        (
            lambda s: {**s, 'layer1.0.bn2.dw.bias': torch.ones(64)},
            r'two tensors for the place of layer1\.0\.bn2\.dw\.bias',
        ),
        (
            lambda s: {**s, 'layer1.0.bnet2.bnconv.weight': torch.ones(64, 1, 4, 4)},
            'has 4x4 kernels, and k is odd',
        ),
        (lambda s: {**s, 'bn1.bias': torch.ones(1).expand(10**12)}, 'damaged or hostile'),
        (lambda s: {**s, 'bn1.bias': torch.eye(64).to_sparse()}, 'not a plain tensor'),
    ],
)
def test_what_is_no_complete_network_is_named(change, sentence, authors18):
    with pytest.raises(InputError, match=sentence):
        converted(change(authors18.state_dict()))


@pytest.mark.parametrize('to', ['mmaction', 'torchvision', 'authors'])
def test_a_network_that_the_destination_lacks(to):
    with pytest.raises(InputError, match='has no network like this ResNetV1d-18'):
        converted(timm.create_model('resnet18d').state_dict(), to=to)


def test_an_expected_layout_is_insisted_on(authors18):
    state = authors18.state_dict()
    assert converted(state, source='authors').layout.kernels == 'authors'
    with pytest.raises(InputError, match="not in the layout 'timm': it is torchvision, BNET"):
        converted(state, source='timm')


@pytest.mark.parametrize('prefix', ['backbone.body.', 'encoder.', 'model.backbone.'])
def test_backbones_anywhere_are_found_and_verified(prefix, authors18):
    state = below(prefix, authors18)
    found = converted(state)
    assert 'layer1.0.bn2.dw.weight' in found.state
    assert all(stage.equal for stage in verify(state, found))


@pytest.mark.parametrize(
    ('name', 'to', 'options'),
    [
        ('resnet18', 'mmdet', {}),
        ('resnet50d', 'mmseg', dict(deep_stem=True, avg_down=True)),
        ('resnext50_32x4d', 'mmdet', dict(groups=32, base_width=4)),
        ('resnext50_32x4d', 'mmpretrain', dict(groups=32, width_per_group=4)),
    ],
)
def test_the_line_of_a_config_loads_the_result(name, to, options, tmp_path):
    theirs = timm.create_model(name)
    found = converted(theirs.state_dict(), to=to, k=3)
    path = write_checkpoint({'state_dict': found.state}, tmp_path / 'x.pth')
    line = use_it(found, path)
    assert line.startswith('backbone=')
    cfg = eval(without_prefix(line, 'backbone='))
    assert options.items() <= cfg.items()
    __import__(f'{to}.models')
    backbone = MODELS.build({**cfg, **{'type': f'{to}.{cfg["type"]}'}})
    backbone.init_weights()
    assert torch.equal(backbone.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)


@pytest.mark.parametrize('to', ['mmpretrain', 'torchvision'])
def test_a_network_of_ones_own_is_built_by_hand(to, tmp_path):
    state = randomize(ResNet20()).state_dict()
    found = converted(state, to=to, k=3)
    assert all(stage.equal for stage in verify(state, found))
    line = use_it(found, tmp_path / 'x.pth')
    assert line.startswith("bnet_mm.enhance(model, k=3, positions='C').load_state_dict(torch.load(")


def test_networks_that_no_library_has_are_named(authors18):
    wide = torchvision.models.wide_resnet50_2().state_dict()
    with pytest.raises(InputError, match='mmdet has no Wide ResNet-50: choose torchvision'):
        converted(wide, k=3)
    grouped = torchvision.models.resnext50_32x4d().state_dict()
    with pytest.raises(InputError, match='mmaction has no network like this ResNeXt-50 32x4d'):
        converted(grouped, to='mmaction')
    state = {k: v for k, v in authors18.state_dict().items() if not k.startswith('layer4.1')}
    with pytest.raises(InputError, match=r'mmdet has no ResNet of \(2, 2, 2, 1\) basic blocks'):
        converted(state)


def test_arguments_that_are_not_known(authors18):
    state = authors18.state_dict()
    with pytest.raises(InputError, match="no names for 'mmrotate'; known are mmdet, mmseg"):
        converted(state, to='mmrotate')
    with pytest.raises(InputError, match="what must be 'backbone' or 'model', got 'head'"):
        converted(state, what='head')
    with pytest.raises(InputError, match="no layout 'mmrotate'; known are authors"):
        converted(state, source='mmrotate')
    with pytest.raises(InputError, match=r'k must be a positive odd integer.*got k=4'):
        converted(state, k=4)


def test_unknown_entries_are_left_over(authors18):
    found = convert(
        contents_of({'state_dict': {**authors18.state_dict(), 'x.y': torch.ones(1)}, 'mystery': 3})
    )
    assert found.unexplained == ['mystery', 'x.y']


def test_a_view_is_written_without_what_it_is_a_view_of(authors18):
    state = authors18.state_dict()
    state['bn1.bias'] = torch.ones(1000)[:64]
    assert storage_of(converted(state).state['bn1.bias']).nbytes() == 64 * 4


def test_verification_finds_every_wrong_tensor(authors18):
    state = authors18.state_dict()
    for name in ('layer2.1.bn2.dw.weight', 'layer4.1.bn1.running_var', 'bn1.bias'):
        found = converted(state)
        found.state[name] = found.state[name] * 1.0001
        assert not all(stage.equal for stage in verify(state, found))
    state = {**dict(state), 'conv1.weight': state['conv1.weight'] * float('nan')}
    assert not any(stage.equal for stage in verify(state, converted(state)))


def test_verification_names_networks_that_do_not_fit(authors18, monkeypatch):
    state = authors18.state_dict()
    with pytest.raises(InputError, match=r'stage 1 gives \(2, 64, .* and \(2, 256, .* in the old'):
        verify(torchvision.models.resnet50().state_dict(), converted(state))
    lacking = converted(state)
    del lacking.state['layer4.1.conv1.weight']
    with pytest.raises(InputError, match=r'Missing key.*layer4\.1\.conv1'):
        verify(state, lacking)
    narrow = randomize(build('mmdet', base_channels=32, stem_channels=32)).state_dict()
    with pytest.raises(InputError, match='torchvision has no ResNet-18, 32 wide'):
        verify(narrow, converted(narrow, to='torchvision'))
    monkeypatch.setitem(sys.modules, 'mmdet.models', None)  # as if they were not installed
    monkeypatch.setitem(sys.modules, 'torchvision.models.resnet', None)
    with pytest.raises(InputError, match='--verify needs mmdet, which cannot be imported'):
        verify(state, converted(state))
    with pytest.raises(InputError, match='--verify needs torchvision: pip install'):
        verify(state, converted(state, to='torchvision'))


def test_a_placement_without_a_norm_cfg_is_named(authors18):
    found = converted(authors18.state_dict())
    mixed = dict(found.state)
    for name in ('weight', 'bias'):
        mixed[f'layer1.0.bn2.{name}'] = torch.ones(64)
        del mixed[f'layer1.0.bn2.dw.{name}']
    for name in ('running_mean', 'running_var', 'num_batches_tracked'):
        mixed[f'layer1.0.bn2.{name}'] = mixed.pop(f'layer1.0.bn2.norm.{name}')
    with pytest.raises(InputError, match='no k, dilation and positions describe'):
        verify(mixed, converted(mixed))


@pytest.mark.parametrize('positions', ['A', 'AC', 'all'])
def test_other_placements_are_found(positions, images):
    theirs = bnet_mm.enhance(randomize(torchvision.models.resnet18()), k=3, positions=positions)
    found = converted(theirs.state_dict(), to='mmdet')
    backbone = build('mmdet', dict(type='BNET', k=3, positions=positions)).double()
    backbone.load_state_dict(found.state)
    theirs = theirs.double().eval()
    assert_same(outputs(backbone, images.double()), stages_of(theirs, images.double()))
    state = theirs.float().state_dict()
    assert all(stage.equal for stage in verify(state, found))
    # The authors have no names for a BNET outside of blocks, and it keeps this package's.
    authors = converted(state, to='authors')
    assert all(stage.equal for stage in verify(state, authors))
    assert_same_tensors(converted(authors.state).state, found.state)
