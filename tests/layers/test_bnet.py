"""The layer against the paper's two lines, plain batch normalization and its state dicts."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnet_mm import BNET
from bnet_mm.errors import InputError

KERNELS = st.sampled_from([1, 3, 5, 7])


class TwoLines(nn.Module):
    """Algorithm 1 of the paper, written with torch's own layers."""

    def __init__(self, channels: int, k: int, dilation: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.conv = nn.Conv2d(
            channels, channels, k, padding=dilation * (k // 2), dilation=dilation, groups=channels
        )

    def forward(self, x):
        return self.conv(self.bn(x))


def randomized(bnet: BNET) -> BNET:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*bnet.parameters(), bnet.norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
        bnet.norm.running_var.uniform_(0.5, 2, generator=generator)
    return bnet


def outputs_and_gradients(layer, x, g):
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(g)
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 3),
    c=st.integers(1, 5),
    h=st.integers(1, 9),
    w=st.integers(2, 9),
    k=KERNELS,
    dilation=st.sampled_from([1, 2]),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_the_papers_two_lines(n, c, h, w, k, dilation, training, seed):
    torch.manual_seed(seed)
    ours = randomized(BNET(c, k=k, dilation=dilation, dtype=torch.float64))
    theirs = TwoLines(c, k, dilation).double()
    with torch.no_grad():
        theirs.conv.weight.copy_(ours.dw.weight)
        theirs.conv.bias.copy_(ours.dw.bias)
        theirs.bn.load_state_dict(ours.norm.state_dict())
    ours.train(training)
    theirs.train(training)
    x, g = torch.randn(2, n, c, h, w, dtype=torch.float64)
    for a, b in zip(outputs_and_gradients(ours, x, g), outputs_and_gradients(theirs, x, g)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    for name, value in theirs.bn.state_dict().items():
        torch.testing.assert_close(ours.norm.state_dict()[name], value)


@pytest.mark.parametrize('training', [True, False])
def test_k1_is_batch_norm(training):
    torch.manual_seed(0)
    bn = nn.BatchNorm2d(6).double()
    nn.init.normal_(bn.weight)
    nn.init.normal_(bn.bias)
    ours = BNET(6, k=1, dtype=torch.float64)
    ours.load_state_dict(bn.state_dict())
    ours.train(training)
    bn.train(training)
    x, g = torch.randn(2, 4, 6, 5, 7, dtype=torch.float64)
    for a, b in zip(outputs_and_gradients(ours, x, g), outputs_and_gradients(bn, x, g)):
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(c=st.integers(1, 8), k=KERNELS, dilation=st.sampled_from([1, 2]), training=st.booleans())
def test_batch_norm_state_dict_loads_strictly_and_computes_the_same(c, k, dilation, training):
    bn = nn.BatchNorm2d(c)
    nn.init.normal_(bn.weight)
    nn.init.normal_(bn.bias)
    nn.init.normal_(bn.running_mean)
    nn.init.uniform_(bn.running_var, 0.5, 2)
    ours = BNET(c, k=k, dilation=dilation)
    state = bn.state_dict()
    kept = dict(state)
    ours.load_state_dict(state, strict=True)
    assert state.keys() == kept.keys()  # the caller's dict is left alone
    ours.train(training)
    bn.train(training)
    x = torch.randn(3, c, 5, 6)
    torch.testing.assert_close(ours(x), bn(x), rtol=1e-5, atol=1e-5)


def test_state_dict_loads_under_a_prefix_without_metadata():
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    nn.init.normal_(block[1].weight)
    state = dict(block.state_dict())
    del state['1.num_batches_tracked']  # files from before torch 0.4.1
    enhanced = nn.Sequential(nn.Conv2d(3, 4, 1), BNET(4, k=5))
    enhanced.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(enhanced.eval()(x), block.eval()(x))


def test_authors_layer_layout_loads():
    theirs = TwoLines(4, 3, 1)
    state = {
        **theirs.bn.state_dict(),
        'bnconv.weight': theirs.conv.weight.data,
        'bnconv.bias': theirs.conv.bias.data,
    }
    ours = BNET(4, k=3)
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_own_state_dict_round_trip_after_copying_and_pickling():
    ours = randomized(BNET(4, k=5))
    buffer = io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    buffer.seek(0)
    other = BNET(4, k=5)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(other.eval()(x), copy.deepcopy(ours).eval()(x))


def test_other_kernel_size_is_named():
    with pytest.raises(RuntimeError, match=r'the checkpoint has 5x5 kernels, the model k=3'):
        BNET(4, k=3).load_state_dict(BNET(4, k=5).state_dict(), strict=False)


def test_starts_as_batch_norm():
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(BNET(4, k=7)(x), nn.BatchNorm2d(4)(x))


@pytest.mark.parametrize('k', [4, 0, -3, '5', 2.0, True, None, (3, 3)])
def test_impossible_kernels_are_refused_by_name(k):
    with pytest.raises(InputError, match=r'k must be a positive odd integer.*got k='):
        BNET(8, k=k)


@pytest.mark.parametrize('dilation', [0, -1, '2', 1.5])
def test_impossible_dilations_are_refused_by_name(dilation):
    with pytest.raises(InputError, match='dilation must be a positive integer'):
        BNET(8, k=3, dilation=dilation)


def test_positions_that_reach_the_layer_are_refused():
    with pytest.raises(InputError, match='does not place norms'):
        BNET(8, k=3, positions='C')
    BNET(8, k=3, positions='all')  # every norm is what this layer gives


def test_options_reach_the_statistics():
    ours = BNET(4, k=3, eps=1e-3, momentum=0.01, track_running_stats=False)
    assert (ours.norm.eps, ours.norm.momentum) == (1e-3, 0.01)
    assert ours.norm.running_mean is None
    assert (ours.num_features, ours.k, ours.dilation) == (4, 3, 1)


@pytest.mark.parametrize('shape', [(4, 6, 6), (2, 4, 6), (2, 4, 3, 6, 6)])
def test_other_than_4d_inputs_are_refused(shape):
    with pytest.raises(ValueError, match='expected a 4-D input'):
        BNET(4, k=3)(torch.randn(shape))


def test_single_value_per_channel_fails_in_training_as_batch_norm_does():
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        BNET(4, k=3)(torch.randn(1, 4, 1, 1))
    assert BNET(4, k=7).eval()(torch.randn(1, 4, 1, 1)).shape == (1, 4, 1, 1)
    assert BNET(4, k=3).eval()(torch.randn(0, 4, 8, 8)).shape == (0, 4, 8, 8)


def test_reset_parameters():
    ours = randomized(BNET(4, k=3))
    ours.reset_parameters()
    fresh = BNET(4, k=3).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in ours.state_dict().items())
