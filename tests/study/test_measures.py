from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnet_study import classification, comparing, dense, measures, nets
from bnet_study.augment import SHIFT, Batches
from bnet_study.measures import CORRUPTIONS, calibration_error, corrupted


@pytest.mark.parametrize('module', [classification, comparing, dense, measures, nets])
def test_examples_of_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried and not failed


@given(st.floats(0.5, 1), st.integers(0, 100))
def test_the_calibration_error_of_one_confidence(confidence, right):
    """All answers in one bin: the error is the distance of confidence and accuracy."""
    logit = float(np.log(confidence / (1 - confidence))) if confidence < 1 else 50.0
    logits = torch.tensor([[logit, 0.0]]).repeat(100, 1)
    labels = torch.tensor([0] * right + [1] * (100 - right))
    if logit > 1e-6:
        expected = abs(100 * min(confidence, 1.0) - right)
        assert calibration_error(logits, labels) == pytest.approx(expected, abs=1e-2)


def test_the_calibration_error_of_a_calibrated_answer_is_small():
    torch.manual_seed(0)
    logits = torch.randn(20000, 3)
    labels = torch.multinomial(logits.softmax(1), 1)[:, 0]
    assert calibration_error(logits, labels) < 2 < calibration_error(3 * logits, labels)


@pytest.mark.parametrize('kind', CORRUPTIONS)
@pytest.mark.parametrize('size', [16, 33])
def test_corruptions_change_photos_the_same_way_each_time(kind, size):
    x = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    y = corrupted(x, kind, 7)
    assert torch.equal(x, before) and y.shape == x.shape
    assert torch.equal(y, corrupted(x, kind, 7)) and not torch.equal(y, x)
    assert y.min() >= 0 and y.max() <= 1


@pytest.mark.parametrize('augment', ['shift', 'scale', 'none'])
def test_the_photos_of_an_epoch_follow_from_seed_and_epoch(augment):
    photos = np.random.default_rng(0).integers(0, 256, (10, 3, 20, 20), np.uint8)
    data = Batches(photos, np.arange(10), torch.device('cpu'))

    def epoch(seed, number):
        batches = list(data.training(4, 20, augment, seed, number))
        return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    (x, y), (again, _) = epoch(1, 2), epoch(1, 2)
    assert torch.equal(x, again) and x.shape == (8, 3, 20, 20)  # the last two are left out
    assert len(set(y.tolist())) == 8
    for other in ((1, 3), (2, 2)):
        assert not torch.equal(epoch(*other)[1], y) or not torch.equal(epoch(*other)[0], x)


def test_shifted_photos_are_parts_of_padded_ones():
    photos = np.random.default_rng(0).integers(1, 256, (6, 3, 8, 8), np.uint8)
    data = Batches(photos, np.arange(6), torch.device('cpu'))
    x, labels = next(data.training(6, 8, 'shift', 0, 0))
    x = (x * data.std + data.mean) * 255
    for one, label in zip(x, labels):
        padded = torch.nn.functional.pad(torch.from_numpy(photos[label]).float(), (SHIFT,) * 4)
        parts = [
            p[:, i : i + 8, j : j + 8]
            for p in (padded, padded.flip(2))
            for i in range(2 * SHIFT + 1)
            for j in range(2 * SHIFT + 1)
        ]
        assert any(torch.allclose(one, part, atol=1e-2) for part in parts)
