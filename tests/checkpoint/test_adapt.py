"""Loading without converting: `init_cfg`, `pretrained`, `load_from` and `load_state_dict`."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from abilities import needs_mmaction
from authors import AuthorsNetwork, older_names, stages_of
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

import bnet_mm
from bnet_mm.checkpoint import contents_of, convert, write_checkpoint
from bnet_mm.errors import InputError

LIBRARIES = ['mmdet', 'mmseg', 'mmaction', 'mmpretrain']
BNET5 = dict(type='BNET', k=5)


def backbone_config(library, norm_cfg=BNET5, depth=18, checkpoint=None, **kwargs):
    __import__(f'{library}.models')
    cfg = dict(type=f'{library}.ResNet', depth=depth, norm_cfg=norm_cfg, **kwargs)
    if library == 'mmaction':
        return {**cfg, **dict(pretrained=checkpoint)}
    return {**cfg, **dict(init_cfg=checkpoint and dict(type='Pretrained', checkpoint=checkpoint))}


def initialized(library, checkpoint, **kwargs):
    backbone = MODELS.build(backbone_config(library, checkpoint=str(checkpoint), **kwargs))
    backbone.init_weights()
    backbone.eval()
    return backbone


def assert_same_stages(backbone, theirs, images):
    with torch.no_grad():
        for ours, expected in zip(backbone(images), theirs(images)):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('prefix', ['module.', 'backbone.', ''])
@pytest.mark.parametrize('names', [dict, older_names])
@pytest.mark.parametrize('zipped', [True, False])
def test_init_cfg_takes_the_authors_files(
    library, prefix, names, zipped, authors18, images, tmp_path
):
    state = names({prefix + key: value for key, value in authors18.state_dict().items()})
    path = tmp_path / 'theirs.pth.tar'
    torch.save({'state_dict': state}, path, _use_new_zipfile_serialization=zipped)
    backbone = initialized(library, path, out_indices=(0, 1, 2, 3))
    assert_same_stages(backbone, authors18, images)


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('to', ['mmaction', 'mmdet'])
def test_init_cfg_takes_safetensors_and_other_libraries_names(
    library, to, authors18, images, tmp_path
):
    found = convert(contents_of(authors18.state_dict()), to=to)
    path = write_checkpoint({'state_dict': found.state}, tmp_path / 'ours.safetensors')
    backbone = initialized(library, path, out_indices=(0, 1, 2, 3))
    assert_same_stages(backbone, authors18, images)


@needs_mmaction
def test_the_video_librarys_own_way_of_naming_is_taken(authors18, images, tmp_path):
    found = convert(contents_of(authors18.state_dict()), to='mmaction')
    path = write_checkpoint({'state_dict': found.state}, tmp_path / 'ours.pth')
    kwargs = dict(out_indices=(0, 1, 2, 3), torchvision_pretrain=False)
    assert_same_stages(initialized('mmaction', path, **kwargs), authors18, images)
    backbone = MODELS.build(
        {**backbone_config('mmaction', checkpoint=str(path)), **dict(type='mmaction.ResNetTSM')}
    )
    backbone.init_weights()
    kernel = backbone.layer1[0].conv2.bn.dw.weight
    assert torch.equal(kernel, authors18.layer1[0].bnet2.bnconv.weight)
    assert torch.equal(backbone.layer1[0].conv1.conv.net.weight, authors18.layer1[0].conv1.weight)


def classifier(library, classes=1000):
    backbone = backbone_config(library)
    if library == 'mmaction':
        head = dict(type='mmaction.TSNHead', num_classes=classes, in_channels=512)
        with DefaultScope.overwrite_default_scope('mmaction'):
            return MODELS.build(dict(type='Recognizer2D', backbone=backbone, cls_head=head))
    head = dict(type='mmpretrain.LinearClsHead', num_classes=classes, in_channels=512)
    neck = dict(type='mmpretrain.GlobalAveragePooling')
    return MODELS.build(
        dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head)
    )


@pytest.mark.parametrize('library', ['mmaction', 'mmpretrain'])
def test_load_from_takes_the_authors_classifier(library, authors18, authors_file):
    model = classifier(library)
    load_checkpoint(model, str(authors_file))
    assert torch.equal(
        dict(model.backbone.named_modules())[
            'layer4.1.conv2.bn' if library == 'mmaction' else 'layer4.1.bn2'
        ].dw.weight,
        authors18.layer4[1].bnet2.bnconv.weight,
    )
    head = model.cls_head.fc_cls if library == 'mmaction' else model.head.fc
    assert torch.equal(head.weight, authors18.fc.weight)
    other = classifier(library, classes=10)
    load_checkpoint(other, str(authors_file))  # its classifier is its own


def test_load_from_takes_the_authors_detector(authors18, tmp_path):
    __import__('mmdet.models')
    cfg = Config.fromfile('configs/demo/faster_rcnn_r18_bnet5_fpn_demo.py')
    cfg.model.backbone.update(base_channels=64, stem_channels=64, init_cfg=None)
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    model = MODELS.build(cfg.model)
    neck = model.neck.lateral_convs[0].conv.weight.detach().clone()
    state = {f'backbone.{key}': value for key, value in authors18.state_dict().items()}
    state = {key: value for key, value in state.items() if '.fc.' not in key}
    torch.save({'state_dict': {**state, 'neck.lateral_convs.0.conv.weight': neck + 1}, 'meta': {}},
               tmp_path / 'detector.pth')  # fmt: skip
    load_checkpoint(model, str(tmp_path / 'detector.pth'))
    kernel = model.backbone.layer2[0].bn2.dw.weight
    assert torch.equal(kernel, authors18.layer2[0].bnet2.bnconv.weight)
    assert torch.equal(model.neck.lateral_convs[0].conv.weight, neck + 1)


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize(
    ('kwargs', 'sentence'),
    [
        (dict(norm_cfg=dict(type='BNET', k=3)), r'has 5x5 kernels, the model k=3 at layer1\.0'),
        (dict(norm_cfg=dict(type='BNET', k=7)), r'convert the checkpoint with --k 7'),
        (dict(depth=34), r'has \(2, 2, 2, 2\) blocks in its stages, the model \(3, 4, 6, 3\)'),
        (dict(depth=50), 'has basic blocks, the model bottleneck blocks'),
    ],
)
def test_another_network_is_named_on_both_sides(library, kwargs, sentence, authors_file):
    with pytest.raises(InputError, match=sentence):
        initialized(library, authors_file, **kwargs)


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_another_width_is_named(library, authors_file):
    with pytest.raises(InputError, match=r'conv1\.weight of shape \(64, .*\(32, .*differ in width'):
        initialized(library, authors_file, base_channels=32, stem_channels=32)


def test_kernels_of_networks_that_are_not_residual():
    cfg = dict(type='mmdet.MobileNetV2', norm_cfg=dict(type='BNET', k=5))
    state = MODELS.build(cfg).state_dict()
    other = MODELS.build({**cfg, **dict(norm_cfg=dict(type='BNET', k=3))})
    with pytest.raises(
        InputError, match=r'5x5 kernels, the model k=3 at layer2\.0\.expand_conv\.bn'
    ):
        load_checkpoint_of(other, state, strict=False)


def test_stems_and_input_channels(authors_file, authors18):
    with pytest.raises(InputError, match='stem of one convolution, the model of three'):
        initialized('mmdet', authors_file, deep_stem=True)
    four = initialized('mmdet', authors_file, in_channels=4)
    assert torch.equal(four.layer1[0].conv1.weight, authors18.layer1[0].conv1.weight)


def test_another_kind_of_layer_is_no_difference_in_width():
    def build(type, **kwargs):
        return MODELS.build(dict(type=type, depth=50, norm_cfg=dict(type='BNET', k=3), **kwargs))

    pooled = build('mmdet.ResNetV1d').state_dict()
    with pytest.raises(InputError, match=r'layer1\.0\.downsample\.1\..* differ in their layers'):
        load_checkpoint_of(build('mmdet.ResNet', deep_stem=True), pooled)
    small = build('mmpretrain.ResNet_CIFAR').state_dict()
    with pytest.raises(InputError, match=r'conv1\.weight of shape \(64, 3, 3, 3\).* their layers'):
        load_checkpoint_of(build('mmpretrain.ResNet'), small, strict=False)


def test_nothing_is_half_loaded(authors_file):
    backbone = MODELS.build(backbone_config('mmdet', dict(type='BNET', k=3)))
    before = copy.deepcopy(backbone.state_dict())
    with pytest.raises(InputError):
        load_checkpoint(backbone, str(authors_file))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_network_of_fewer_stages_takes_what_it_has(authors18, authors_file):
    backbone = initialized('mmdet', authors_file, num_stages=3, strides=(1, 2, 2),
                           dilations=(1, 1, 1), out_indices=(2,))  # fmt: skip
    kernel = backbone.layer3[1].bn2.dw.weight
    assert torch.equal(kernel, authors18.layer3[1].bnet2.bnconv.weight)


def test_plain_networks_load_their_own_names_as_the_library_has_it(tmp_path):
    state = torchvision.models.resnet18().state_dict()
    torch.save(
        {'conv1.weight': state['conv1.weight'], 'backbone.bn1.weight': 0}, tmp_path / 'x.pth'
    )
    plain = MODELS.build(backbone_config('mmdet', dict(type='BN')))
    load_checkpoint(plain, str(tmp_path / 'x.pth'))
    assert torch.equal(plain.conv1.weight, state['conv1.weight'])


def test_load_state_dict_takes_the_authors_tensors(authors18, images):
    model = bnet_mm.enhance(torchvision.models.resnet18(), k=5)
    model = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    model.load_state_dict(authors18.state_dict())
    older = bnet_mm.enhance(torchvision.models.resnet18(), k=5)
    older.load_state_dict(older_names(authors18.state_dict()))
    assert_same_stages(lambda x: stages_of(model.eval(), x), authors18, images)
    assert_same_stages(lambda x: stages_of(older.eval(), x), authors18, images)
    with pytest.raises(RuntimeError, match='5x5 kernels, the model k=3'):
        bnet_mm.enhance(torchvision.models.resnet18(), k=3).load_state_dict(authors18.state_dict())


def test_networks_side_by_side_load_by_their_own_names():
    pair = nn.ModuleList(bnet_mm.enhance(torchvision.models.resnet18(), k=5) for _ in range(2))
    copied = copy.deepcopy(pair)
    theirs = nn.ModuleList(AuthorsNetwork(18, 5) for _ in range(2))
    load_checkpoint_of(copied, theirs.state_dict())
    kernel = theirs[1].layer1[0].bnet2.bnconv.weight
    assert torch.equal(copied[1].layer1[0].bn2.dw.weight, kernel)


def load_checkpoint_of(model, state, strict=True):
    import mmengine.runner.checkpoint as checkpoint

    checkpoint.load_state_dict(model, state, strict=strict)
