"""Binary activations and weights against the definitions of Bi-Real Net's paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmcv.cnn import fuse_conv_bn

from bnet_mm.layers.binary import BinaryActivation, BinaryConv2d


def approx_sign(a):
    """F(a) of eq. 5, whose derivative stands for that of the sign."""
    if a < -1:
        return -1.0
    if a < 0:
        return 2 * a + a * a
    if a < 1:
        return 2 * a - a * a
    return 1.0


@given(st.floats(-2, 2))
def test_the_sign_has_the_derivative_of_approx_sign(a):
    x = torch.tensor(a, dtype=torch.float64, requires_grad=True)
    y = BinaryActivation()(x)
    assert y.item() == (-1.0 if a < 0 else 1.0)
    y.backward()
    step = 1e-6
    slope = (approx_sign(a + step) - approx_sign(a - step)) / (2 * step)
    assert abs(x.grad.item() - slope) < 1e-5


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2**31))
def test_a_binary_convolution_is_its_definition(cin, cout, stride, seed):
    torch.manual_seed(seed)
    conv = BinaryConv2d(cin, cout, 3, stride, 1, dtype=torch.float64)
    torch.nn.init.uniform_(conv.weight, -1.5, 1.5)
    x = torch.randn(2, cin, 7, 7, dtype=torch.float64).sign().requires_grad_()
    w = conv.weight.detach()
    scale = torch.stack([f.abs().sum() / f.numel() for f in w])[:, None, None, None]
    binary = (scale * torch.where(w >= 0, 1.0, -1.0)).requires_grad_()
    y = conv(x)
    expected = F.conv2d(x, binary, stride=stride, padding=1)
    torch.testing.assert_close(y, expected)
    g = torch.randn_like(y)
    of_x, of_w = torch.autograd.grad(y, (x, conv.weight), g)
    expected_x, of_binary = torch.autograd.grad(expected, (x, binary), g)
    torch.testing.assert_close(of_x, expected_x)
    # Magnitude-aware: the derivative of ||W||_1/|W| sign(W), with 1 where |w| < 1 for that of sign.
    torch.testing.assert_close(of_w, of_binary * scale * (w.abs() < 1))
    assert len(conv.binary_weight()[0].abs().unique()) <= 2  # of one magnitude, up to rounding


def test_folding_a_norm_into_a_binary_convolution_changes_nothing():
    torch.manual_seed(0)
    conv, norm = BinaryConv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.running_mean)
    model = torch.nn.Sequential(BinaryActivation(), conv, norm).eval()
    x = torch.randn(2, 4, 6, 6)
    expected = model(x)
    torch.testing.assert_close(fuse_conv_bn(model)(x), expected)
