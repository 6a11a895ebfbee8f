"""Kernels that are zero around the centre are folded as batch norms, whole."""

from __future__ import annotations

import pytest
import torch
import torchvision
from mmengine.config import Config
from torch import nn

from bnet_mm import BNET, enhance
from bnet_mm.deploy import fuse, fusing, load, save
from bnet_mm.deploy.centre_taps import centre_taps_to_norms
from bnet_mm.deploy.structure import ResidualBlock, Taps
from bnet_mm.errors import InputError
from bnet_mm.layers import GNET, EnhancedNorm
from bnet_mm.openmmlab.models import build_model
from bnet_mm.reports.deployment import fusion_tables


def centred(layer: EnhancedNorm) -> EnhancedNorm:
    """Lets a kernel of any values be zero around its centre."""
    taps = layer.dw.weight.data
    kept = taps[:, :, layer.k // 2, layer.k // 2].clone()
    taps.zero_()[:, :, layer.k // 2, layer.k // 2] = kept
    return layer


@pytest.mark.parametrize('plain', [False, True])
@pytest.mark.parametrize('options', [dict(k=5), dict(k=3, dilation=2), dict(k=1)])
def test_it_goes_into_the_convolution_whole(options, plain, trained, equal):
    model = trained(nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, eps=0.1, **options), nn.ReLU()))
    centred(model[1])
    model[1].dw.weight.data[0] = 0  # as zero_init_residual does; a channel may be nothing but bias
    fused = fuse(model, plain=plain)
    assert (fused.fusion.folded, fused.fusion.centred) == ({'1': ['0']}, ['1'])
    assert type(fused[1]) is nn.Identity and not fused.fusion.taps
    for height, width in ((9, 12), (3, 3)):
        equal(model, fused, 2, 3, height, width)


def test_the_last_bit_outside_the_centre_keeps_the_kernel(trained, equal):
    model = trained(nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, k=3)))
    centred(model[1]).dw.weight.data[5, 0, 0, 2] = torch.finfo(torch.float32).smallest_normal
    fused = fuse(model)
    assert type(fused[1]) is Taps and not fused.fusion.centred
    equal(model, fused, 2, 3, 9, 9)
    centred(model[1]).dw.weight.data[5, 0, 0, 2] = float('nan')
    with pytest.raises(InputError, match='would not stay equal'):
        fuse(model)


def test_the_others_of_a_network_keep_theirs(trained, equal):
    """As in a detector whose first stage is frozen, from the weights of a batch norm."""
    torch.manual_seed(0)
    model = trained(enhance(torchvision.models.resnet18(num_classes=5), k=3))
    frozen = [f'layer1.{i}.bn2' for i in range(2)]
    for name in frozen:
        centred(model.get_submodule(name))
    fused = fuse(model)
    assert fused.fusion.centred == frozen and set(fused.fusion.ends) == {
        f'layer{i}.{j}' for i in (2, 3, 4) for j in range(2)
    }
    assert not fused.fusion.apart and not isinstance(fused.layer1[0], ResidualBlock)
    equal(model, fused, 1, 3, 64, 64)
    lines = '\n'.join(map(str, fusion_tables(fused.fusion)))
    assert 'folded whole' in lines
    assert 'as before training' not in lines
    plain = fuse(model, plain=True)
    kernels = [m for m in plain.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(kernels) == 6


def test_an_exchange_that_changed_something_would_be_found(monkeypatch):
    def exchange(model: nn.Module) -> list[str]:
        names = centre_taps_to_norms(model)
        for name in names:
            model.get_submodule(name).weight.data *= 1.01
        return names

    monkeypatch.setattr(fusing, 'centre_taps_to_norms', exchange)
    with pytest.raises(InputError, match='would not stay equal when folded'):
        fuse(nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, k=3)))


def test_one_that_was_not_trained_is_said():
    fused = fuse(nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, k=3)))
    assert any('as before training' in str(part) for part in fusion_tables(fused.fusion))


@pytest.mark.parametrize('plain', [False, True])
def test_the_file_of_one_is_loaded(plain, trained, tmp_path):
    pytest.importorskip('mmpretrain')
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet', depth=18, base_channels=8,
                              norm_cfg=dict(type='BNET', k=5)),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
            ),
        )
    )  # fmt: skip
    model = trained(build_model(cfg))
    centred(model.backbone.layer1[0].bn2)
    model.cfg, model.dataset_meta = cfg, {}
    fused = fuse(model, plain=plain)
    assert fused.fusion.centred == ['backbone.layer1.0.bn2']
    fused.cfg = cfg
    loaded = load(save(fused, tmp_path / 'folded.pth'))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0], fused(x)[0])
    assert loaded.fusion == fused.fusion


def test_what_does_not_lie_behind_a_convolution_becomes_a_norm(trained, equal):
    model = trained(nn.Sequential(BNET(3, k=3), nn.Conv2d(3, 8, 3), nn.ReLU(), BNET(8, k=5)))
    for layer in (model[0], model[3]):
        centred(layer)
    fused = fuse(model, plain=True)
    assert fused.fusion.centred == ['0', '3'] and set(fused.fusion.left) == {'0', '3'}
    assert type(fused[0]) is nn.BatchNorm2d
    equal(model, fused, 2, 3, 9, 9)


def test_other_norms_and_watched_layers_keep_theirs():
    watched = nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, k=3)).eval()
    watched[1].dw.register_forward_hook(lambda *_: None)
    for model in (nn.Sequential(nn.Conv2d(3, 8, 3), GNET(8, k=3, num_groups=2)), watched):
        assert not fuse(model).fusion.centred
