"""Other norms, plain and enhanced, against references written from their papers' definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from abilities import needs_torch_2
from hypothesis import given
from hypothesis import strategies as st
from mmcv.cnn import build_norm_layer
from torch import nn

import bnet_mm  # noqa: F401  (registers the norms)
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET, GNET, INET, SNET, BNControl, SwitchNorm2d

EPS = 1e-5


def softmax(values):
    shares = np.exp(values - values.max())
    return shares / shares.sum()


def switchable(x, mean_weight, var_weight, batch=None):
    """The definition, sample by sample and channel by channel (Luo et al., eq. 3 to 5)."""
    n, c = x.shape[:2]
    y = np.empty_like(x)
    w, v = softmax(mean_weight), softmax(var_weight)
    for i in range(n):
        for j in range(c):
            mean_bn, var_bn = (x[:, j].mean(), x[:, j].var()) if batch is None else (
                batch[0][j], batch[1][j])  # fmt: skip
            mean = w[0] * x[i, j].mean() + w[1] * x[i].mean() + w[2] * mean_bn
            var = v[0] * x[i, j].var() + v[1] * x[i].var() + v[2] * var_bn
            y[i, j] = (x[i, j] - mean) / np.sqrt(var + EPS)
    return y


@given(
    n=st.integers(1, 4), c=st.integers(1, 5), h=st.integers(1, 6), w=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_switchable_norm_is_its_definition(n, c, h, w, seed):
    torch.manual_seed(seed)
    norm = SwitchNorm2d(c, dtype=torch.float64)
    for weight in (norm.mean_weight, norm.var_weight, norm.weight, norm.bias):
        nn.init.normal_(weight)
    x = 3 * torch.randn(n, c, h, w, dtype=torch.float64) + 5
    parameters = norm.mean_weight.detach().numpy(), norm.var_weight.detach().numpy()
    scale, shift = (t.detach().numpy()[:, None, None] for t in (norm.weight, norm.bias))
    before = [norm.batch.running_mean.numpy().copy(), norm.batch.running_var.numpy().copy()]
    expected = switchable(x.numpy(), *parameters) * scale + shift
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)
    # The running statistics move by the momentum to those of the batch, the variance too unbiased.
    of_batch = x.numpy().mean((0, 2, 3)), x.numpy().var((0, 2, 3))
    tracked = [0.9 * old + 0.1 * new for old, new in zip(before, of_batch)]
    np.testing.assert_allclose(norm.batch.running_mean.numpy(), tracked[0], rtol=1e-9)
    np.testing.assert_allclose(norm.batch.running_var.numpy(), tracked[1], rtol=1e-9, atol=1e-12)
    expected = switchable(x.numpy(), *parameters, tracked) * scale + shift
    np.testing.assert_allclose(norm.eval()(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@needs_torch_2
@pytest.mark.parametrize('training', [True, False])
def test_switchable_norms_gradients(training):
    torch.manual_seed(0)
    norm = SwitchNorm2d(3, dtype=torch.float64).train(training)
    norm(torch.randn(4, 3, 5, 5, dtype=torch.float64))
    for weight in norm.parameters():
        nn.init.normal_(weight)
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    norm.batch.momentum = 0.0  # else every probe would move the statistics
    assert torch.autograd.gradcheck(norm, x)
    for name, weight in list(norm.named_parameters()):

        def of_weight(value, name=name):
            return torch.func.functional_call(norm, {name: value}, x)

        assert torch.autograd.gradcheck(of_weight, weight.detach().clone().requires_grad_())


def test_switchable_norm_averages_over_batches():
    torch.manual_seed(0)
    norm = SwitchNorm2d(3, momentum=None)
    batches = [torch.randn(2, 3, 4, 4) + i for i in range(3)]
    for batch in batches:
        norm(batch)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.var((0, 2, 3), correction=0) for batch in batches])
    torch.testing.assert_close(norm.batch.running_mean, means.mean(0))
    torch.testing.assert_close(norm.batch.running_var, variances.mean(0))


def test_switchable_norm_takes_its_authors_and_batch_norms_tensors():
    state = {
        'weight': torch.randn(1, 4, 1, 1), 'bias': torch.randn(1, 4, 1, 1),
        'mean_weight': torch.randn(3), 'var_weight': torch.randn(3),
        'running_mean': torch.randn(1, 4, 1), 'running_var': torch.rand(1, 4, 1),
    }  # fmt: skip
    norm = SwitchNorm2d(4)
    norm.load_state_dict(state)
    assert torch.equal(norm.batch.running_mean, state['running_mean'].flatten())
    assert torch.equal(norm.weight, state['weight'].flatten())
    plain = nn.BatchNorm2d(4)
    nn.init.normal_(plain.weight)
    norm = SwitchNorm2d(4)
    norm.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(norm.weight, plain.weight)


def test_switchable_norm_and_what_it_cannot_do(process_group, monkeypatch):
    norm = SwitchNorm2d(4)
    with pytest.raises(InputError, match='4-D input'):
        norm(torch.zeros(2, 4))
    assert norm(torch.zeros(0, 4, 2, 2)).shape == (0, 4, 2, 2)
    half = norm(torch.randn(2, 4, 8, 8).half())
    assert half.dtype == torch.float16 and half.isfinite().all()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(norm))
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda group=None: 2)
    with pytest.raises(InputError, match='SN has no statistics over processes'):
        converted(torch.randn(2, 4, 2, 2))


PAIRS = [
    (lambda: nn.GroupNorm(2, 4), lambda k: GNET(4, k, num_groups=2)),
    (lambda: nn.InstanceNorm2d(4, affine=True), lambda k: INET(4, k)),
    (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
     lambda k: INET(4, k, track_running_stats=True)),
    (lambda: SwitchNorm2d(4), lambda k: SNET(4, k)),
]  # fmt: skip


@pytest.mark.parametrize('k', [1, 3, 5])
@pytest.mark.parametrize(('plain', 'enhanced'), PAIRS, ids=['GN', 'IN', 'IN tracked', 'SN'])
def test_enhanced_norms(plain, enhanced, k):
    torch.manual_seed(0)
    plain, enhanced = plain().double(), enhanced(k).double()
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    enhanced.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64) + 1
    for module in (plain, enhanced):
        module(x)
    for mode in (True, False):
        torch.testing.assert_close(enhanced.train(mode)(x), plain.train(mode)(x))
    # With any kernel: a zero-padded convolution of the normalized map, channel by channel.
    nn.init.normal_(enhanced.dw.weight)
    normalized = (enhanced.norm(x)).detach().numpy()
    r = k // 2
    padded = np.pad(normalized, ((0, 0), (0, 0), (r, r), (r, r)))
    kernel = enhanced.dw.weight.detach().numpy()
    expected = (
        sum(
            kernel[:, 0, i, j, None, None] * padded[:, :, i : i + 6, j : j + 5]
            for i in range(k)
            for j in range(k)
        )
        + enhanced.dw.bias.detach().numpy()[:, None, None]
    )
    np.testing.assert_allclose(enhanced(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(enhanced.eval(), x[:1, :, :3, :3].clone().requires_grad_())


@pytest.mark.parametrize(
    ('norm_cfg', 'name', 'kind'),
    [
        (dict(type='GNET', k=3, num_groups=4), 'gn1', GNET),
        (dict(type='SNET', k=3), 'sn1', SNET),
        (dict(type='INET', k=3), 'in1', INET),
        (dict(type='SN'), 'sn1', SwitchNorm2d),
        (dict(type='BNControl', k=3), 'bn1', BNControl),
        (dict(type='BNET', k=3), 'bn1', BNET),
    ],
)
def test_built_by_name_with_the_abbreviation_of_the_plain_norm(norm_cfg, name, kind):
    got, norm = build_norm_layer({**norm_cfg, 'requires_grad': False, '_scope_': 'x'}, 8, postfix=1)
    assert (got, type(norm)) == (name, kind)
    assert not any(p.requires_grad for p in norm.parameters())


@pytest.mark.parametrize('kind', [BNET, GNET, SNET, INET, BNControl])
def test_positions_are_for_networks_that_place(kind):
    with pytest.raises(InputError, match=f'{kind.__name__}: positions'):
        kind(32, positions='C')


def test_groups_that_do_not_divide_the_channels_are_named():
    with pytest.raises(InputError, match='12 channels cannot be divided into num_groups=8'):
        GNET(12, num_groups=8)


def test_the_control_is_its_three_parts():
    torch.manual_seed(0)
    control = BNControl(4, 3, dilation=2)
    nn.init.normal_(control.norm.weight)
    x = torch.randn(2, 4, 7, 7)
    norm = nn.BatchNorm2d(4)
    norm.load_state_dict(control.norm.state_dict())
    conv = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4)
    conv.load_state_dict(control.conv.state_dict())
    torch.testing.assert_close(control(x), conv(norm(x).relu()))
    other = BNControl(4, 3)
    assert other.load_state_dict(norm.state_dict(), strict=False).unexpected_keys == []
    assert torch.equal(other.norm.weight, norm.weight)
    other.zero_output()
    y = other(x)
    assert not y.any()
    y.sum().backward()
    assert other.conv.weight.grad.any()
