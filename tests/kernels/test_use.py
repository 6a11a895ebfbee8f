"""The choice of a back end for a whole process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from bnet_mm.errors import InputError
from bnet_mm.kernels import eager, use
from bnet_mm.kernels.backend import choose
from bnet_mm.layers import BNET

MAP = torch.randn(2, 4, 6, 6)


def test_in_a_with_statement_and_until_its_end():
    before = choose(MAP, 3, 1)
    with use('eager'):
        assert choose(MAP, 3, 1)[0] is eager
        with use('auto'):
            assert choose(MAP, 3, 1) == before
        assert 'it was chosen' in BNET(4).computed_by(MAP)
    assert choose(MAP, 3, 1) == before


def test_a_back_end_that_does_not_take_a_map_says_why():
    with use('cpu'):
        backend, reason = choose(MAP.to('meta'), 3, 1)
    assert backend is eager and 'on meta' in reason
    with pytest.raises(InputError, match="no back end 'cuda': take auto, eager, cpu, triton"):
        use('cuda')


def test_results_agree():
    layer = BNET(4, k=5)
    torch.nn.init.normal_(layer.dw.weight)
    expected = layer(MAP)
    with use('eager'):
        torch.testing.assert_close(layer(MAP), expected)


def test_chosen_by_the_environment():
    code = 'from bnet_mm.kernels import use; print(use.chosen)'
    run = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'BNET_MM_KERNELS': 'eager'},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == 'eager', run.stderr
