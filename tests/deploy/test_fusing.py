"""Folding: what is folded stays equal, and what cannot be folded is left and said."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from abilities import needs_half_convolution
from mmcv.cnn import ConvModule, fuse_conv_bn
from mmengine.model import revert_sync_batchnorm
from torch import nn

from bnet_mm.deploy import fuse
from bnet_mm.deploy.structure import FixedNorm, Taps
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET, EnhancedNorm, SyncBNET

NORMS = {
    'BN': lambda c: nn.BatchNorm2d(c),
    'BN, eps': lambda c: nn.BatchNorm2d(c, eps=0.1),
    'BN, not affine': lambda c: nn.BatchNorm2d(c, affine=False),
    'SyncBN': lambda c: nn.SyncBatchNorm(c),
    'SyncBN, reverted': lambda c: revert_sync_batchnorm(nn.Sequential(nn.SyncBatchNorm(c)))[0],
    'BNET-1': lambda c: BNET(c, k=1),
    'BNET-5': lambda c: BNET(c, k=5, eps=0.1),
    'BNET-3, dilated': lambda c: BNET(c, k=3, dilation=2),
    'SyncBNET': lambda c: SyncBNET(c, k=3),
    'SyncBNET, reverted': lambda c: revert_sync_batchnorm(SyncBNET(c, k=7)),
}
CONVS = {
    '1x1, bias': dict(kernel_size=1, bias=True),
    'strided': dict(kernel_size=3, stride=2, padding=1, bias=False),
    'uneven stride': dict(kernel_size=(3, 5), stride=(2, 3), padding=(0, 2), bias=False),
    'groups': dict(kernel_size=3, padding=1, groups=4, bias=True),
    'depthwise': dict(kernel_size=3, padding=1, groups=8, bias=False),
    'dilated': dict(kernel_size=3, padding=2, dilation=2, bias=False),
    'same': dict(kernel_size=4, padding='same', bias=False),
    'reflecting': dict(kernel_size=3, padding=1, padding_mode='reflect', bias=True),
}


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('conv', CONVS)
def test_pairs(norm, conv, trained, equal):
    model = trained(nn.Sequential(nn.Conv2d(8, 16, **CONVS[conv]), NORMS[norm](16), nn.ReLU()))
    fused = fuse(model, shape=(9, 12))
    assert fused.fusion.folded == {'1': ['0']}
    # A kernel of 1 x 1 is a batch norm's scale.
    assert type(fused[1]) is (Taps if 'BNET' in norm and norm != 'BNET-1' else nn.Identity)
    for height, width in ((11, 14), (4, 5), (3, 3)):  # the last two smaller than some kernels
        equal(model, fused, 2, 8, height, width)


@pytest.mark.parametrize(
    'dtype',
    [
        *(torch.float32, torch.float64, torch.bfloat16),
        pytest.param(torch.float16, marks=needs_half_convolution),
    ],
)
def test_types_and_memory_formats(dtype, trained):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, k=5), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    model = trained(model).to(dtype).to(memory_format=torch.channels_last)
    fused = fuse(model)
    assert len(fused.fusion.folded) == 2
    assert all(t.dtype == dtype for t in fused.state_dict().values())
    x = torch.randn(2, 3, 9, 11).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        y, expected = fused(x), model.double()(x.double())
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert (y - expected).abs().max() <= 8 * torch.finfo(dtype).eps * expected.abs().max()


def test_long_sums_in_float64(trained):
    model = trained(nn.Sequential(nn.Conv2d(512, 16, 5), BNET(16))).double()
    assert fuse(model, shape=(12, 12)).fusion.folded


def test_no_images_and_tracing(trained):
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), BNET(4, k=5), nn.ReLU()))
    fused = fuse(model)
    x = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        assert fused(x[:0]).shape == (0, 4, 7, 6)
        traced = torch.jit.trace(fused, x[:1])
        assert torch.allclose(traced(x), model(x), atol=1e-5)
        # In the graph there is torch's convolution, which adds in another order.
        assert torch.allclose(torch.fx.symbolic_trace(fused)(x), fused(x), atol=1e-6)


def test_the_model_given_stays_as_it_is(trained):
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), BNET(4), nn.Conv2d(4, 4, 1)))
    model.train()
    model[0].weight.requires_grad_(False)
    before = deepcopy(model.state_dict())
    fused = fuse(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and model[1].norm.training and not hasattr(model, 'fusion')
    assert not any(module.training for module in fused.modules())
    assert not fused[0].weight.requires_grad and fused[2].weight.requires_grad
    again = fuse(fused)
    assert again.fusion == fused.fusion and again is not fused


class Preactivated(nn.Module):
    """Children in the order of a plain block, used as a pre-activation block uses them."""

    def __init__(self, norm):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = norm(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = norm(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn3 = norm(4)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return self.bn3(x)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, BNET])
def test_preactivation(norm, trained, equal):
    model = trained(Preactivated(norm))
    fused = fuse(model)
    assert fused.fusion.folded == {'bn2': ['conv1']}
    assert fused.fusion.left == {
        'bn1': 'stem gives its output to others, too',
        'bn3': 'it does not directly follow a convolution',
    }
    kept = FixedNorm if norm is nn.BatchNorm2d else BNET
    assert type(fused.bn1) is type(fused.bn3) is kept
    equal(model, fused, 2, 3, 8, 9)
    equal(model, fuse_conv_bn(deepcopy(fused)), 2, 3, 8, 9)


class Branches(nn.Module):
    """One convolution and one norm, wired in the way that is asked for."""

    def __init__(self, way, norm=nn.BatchNorm2d):
        super().__init__()
        self.way = way
        self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.bn, self.bn2 = norm(4), norm(4)

    def forward(self, x):
        way, y = self.way, self.conv(x)
        if way == 'returned':
            return self.bn(y), y
        if way == 'kept in a dict':
            return {'normal': self.bn(y), 'raw': [y.detach()]}['normal'], y[:, :1]
        if way == 'read before':
            return self.bn(y) + y.mean()
        if way == 'changed in place':
            return self.bn(y.relu_())
        if way == 'a part':
            return self.bn(y[:, :, 1:])
        if way == 'two norms':
            return self.bn(y), self.bn2(y)
        if way == 'one norm, two convolutions':
            return self.bn(y), self.bn(self.other(x))
        if way == 'twice':
            return self.bn(y), self.bn(self.conv(x.flip(2)[:, :, 2:]))
        if way == 'norm elsewhere, too':
            return self.bn(y), self.bn(y.relu())
        if way == 'weights elsewhere, too':
            return self.bn(y) + self.conv.weight.mean()
        if way == 'as a function':
            return self.bn(F.conv2d(x, self.conv.weight, self.conv.bias))
        if way == 'other bias':
            return self.bn(F.conv2d(x, self.conv.weight, self.other.bias))
        raise AssertionError(way)


FOLDED = {'one norm, two convolutions': {'bn': ['conv', 'other']}, 'twice': {'bn': ['conv']}}


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, BNET])
@pytest.mark.parametrize(
    'way',
    [
        'returned',
        'kept in a dict',
        'read before',
        'changed in place',
        'a part',
        'two norms',
        'one norm, two convolutions',
        'twice',
        'norm elsewhere, too',
        'weights elsewhere, too',
        'as a function',
        'other bias',
    ],
)
def test_shared_and_used_otherwise(way, norm, trained, equal):
    model = trained(Branches(way, norm))
    fused = fuse(model)
    assert fused.fusion.folded == FOLDED.get(way, {})
    equal(model, fused, 2, 3, 8, 9)


class Head(nn.Module):
    """Convolutions shared by levels, with norms of their own (as in RetinaNet's SepBN head)."""

    def __init__(self, shared_norms, levels=3):
        super().__init__()
        convs = [ConvModule(4, 4, 3, padding=1, norm_cfg=dict(type='BN')) for _ in range(levels)]
        self.levels = nn.ModuleList(convs)
        for level in convs[1:]:
            level.conv = convs[0].conv
            if shared_norms:
                level.bn = convs[0].bn
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return [self.out(level(x[:, :, i:])) for i, level in enumerate(self.levels)]


@pytest.mark.parametrize('shared_norms', [True, False])
def test_a_head_over_levels(shared_norms, trained, equal):
    model = trained(Head(shared_norms))
    fused = fuse(model)
    assert len(fused.fusion.folded) == (1 if shared_norms else 0)
    assert len(fused.fusion.left) == (0 if shared_norms else 3)
    equal(model, fused, 1, 4, 8, 9)
    if not shared_norms:
        equal(model, fuse_conv_bn(deepcopy(fused)), 1, 4, 8, 9)


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class NoBias(nn.Conv2d):
    """A convolution that would not notice a bias."""

    def forward(self, x):
        return F.conv2d(x, self.weight, None, self.stride, self.padding)


@pytest.mark.parametrize(
    'conv',
    [
        Standardized(3, 4, 3, bias=False),
        NoBias(3, 4, 3, bias=False),
        nn.ConvTranspose2d(3, 4, 3),
        nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)),
        nn.utils.parametrizations.orthogonal(nn.Conv2d(3, 4, 3)),
    ],
    ids=lambda conv: type(conv).__name__,
)
def test_convolutions_that_are_more(conv, trained, equal):
    model = trained(nn.Sequential(nn.Conv2d(3, 3, 1), conv, BNET(4), nn.Conv2d(4, 4, 1)))
    fused = fuse(model)
    assert not fused.fusion.folded and list(fused.fusion.left) == ['2']
    equal(model, fused, 1, 3, 8, 9)


def test_what_is_watched_or_has_no_statistics_is_left(trained, equal):
    seen = []
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False),
        nn.Conv2d(4, 4, 1), BNET(4, track_running_stats=False),
        nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1), BNET(4),
        nn.Conv2d(4, 4, 1), EnhancedNorm(nn.GroupNorm(2, 4), 4, 3),
    )  # fmt: skip
    model[4].register_forward_hook(lambda *args: seen.append('conv'))
    model[7].register_forward_hook(lambda *args: seen.append('norm'))
    fused = fuse(trained(model))
    assert not fused.fusion.folded
    assert fused.fusion.left == {
        '1': 'it has no running statistics',
        '3': 'it has no running statistics',
        '5': '4 has hooks',
        '7': 'it has hooks',
        '9': 'its normalization is GroupNorm',
    }
    assert seen
    equal(model, fused, 2, 3, 8, 9)


def test_what_is_not_run_is_left(trained, equal):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x, everything=False):
            x = self.body(x)
            return self.bn(x) if everything else x

    model = trained(Auxiliary())
    fused = fuse_conv_bn(fuse(model))
    assert fused.fusion.left == {'bn': 'it was not used on the sample input'}
    x = torch.randn(1, 3, 5, 5)
    with torch.no_grad():
        assert torch.allclose(model(x, True), fused(x, True), atol=1e-5)


def test_fuse_conv_bn_before_and_after(trained, equal):
    model = trained(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 3), BNET(4, k=3), nn.ReLU(),
            ConvModule(4, 4, 3, norm_cfg=dict(type='BNET', k=3)),
            ConvModule(4, 4, 3, norm_cfg=dict(type='BN')),
        )
    )  # fmt: skip
    fused = fuse(model)
    assert len(fused.fusion.folded) == 4 and list(fused.fusion.left) == ['3']
    equal(model, fuse_conv_bn(deepcopy(fused)), 2, 3, 12, 13)
    after = fuse(fuse_conv_bn(deepcopy(model)))
    assert list(after.fusion.folded) == ['5', '7.bn']
    equal(model, after, 2, 3, 12, 13)


def test_conv_modules(trained, equal):
    bnet = dict(type='BNET', k=3)
    model = trained(
        nn.Sequential(
            ConvModule(3, 4, 3, padding=1, norm_cfg=bnet),
            ConvModule(4, 4, 3, padding=1, norm_cfg=bnet, order=('act', 'conv', 'norm')),
            ConvModule(4, 4, 3, padding=1, norm_cfg=bnet, order=('norm', 'conv', 'act')),
            ConvModule(4, 4, 3, padding=1, norm_cfg=bnet, padding_mode='reflect'),
            ConvModule(4, 4, 3, norm_cfg=dict(type='BN'), efficient_conv_bn_eval=True),
        )
    )
    fused = fuse(model)
    # The third's norm comes after the second's, which has none to follow.
    assert sorted(fused.fusion.folded) == ['0.bn', '1.bn', '3.bn']
    assert fused.fusion.left == {
        '2.bn': 'it does not directly follow a convolution',
        '4.bn': 'it was not used on the sample input',
    }
    equal(model, fused, 2, 3, 12, 13)


def test_a_use_that_no_run_shows_is_refused(trained):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.runs = 0

        def forward(self, x):
            self.runs += 1
            y = self.conv(x)
            return self.bn(y) + (y if self.runs > 1 else 0)

    model = trained(Hidden())
    with pytest.raises(InputError, match='would not stay equal when folded'):
        fuse(model)
    assert isinstance(model.bn, nn.BatchNorm2d)


def test_inputs(trained, equal):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(1, 4, 3), BNET(4)

        def forward(self, image, indices):
            return self.bn(self.conv(image))[indices]

    model = trained(Two())
    with pytest.raises(InputError, match=r'Two cannot be run on these inputs \(TypeError'):
        fuse(model)
    inputs = torch.randn(2, 1, 8, 8), torch.tensor([1])
    assert fuse(model, inputs).fusion.folded == {'bn': ['conv']}
    called = fuse(model, lambda m: m(inputs[0].to(m.conv.weight), inputs[1]))
    assert called.fusion.folded == {'bn': ['conv']}
    with pytest.raises(InputError, match='inputs must be'):
        fuse(model, 'image.png')
    with pytest.raises(InputError, match='gave no tensors'):
        fuse(model, lambda m: None)
    with pytest.raises(InputError, match='no convolution'):
        fuse(nn.Linear(2, 2))


def test_a_model_without_float64_is_compared_in_its_own_type(trained, equal):
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), BNET(4)

        def forward(self, x):
            if x.dtype == torch.float64:
                raise RuntimeError('no float64 here')
            return self.bn(self.conv(x))

    fused = fuse(trained(Single()))
    assert fused.fusion.folded == {'bn': ['conv']}
    assert fused.fusion.difference < 1e-5


@needs_half_convolution
def test_values_beyond_the_type_are_left(trained):
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    for tensor in (model[0].bias.data, model[1].running_mean, model[1].bias.data):
        tensor.zero_()
    model[1].running_var.fill_(1e-6)
    model[1].weight.data.fill_(5000)
    small = torch.full((1, 3, 8, 8), 1e-4)
    fused = fuse(model.half(), lambda m: m(small.to(m[0].weight)))
    assert fused.fusion.left == {'1': 'folded, its values do not fit torch.float16'}
