"""Networks and files that the tests of checkpoints share."""

from __future__ import annotations

import pytest
import torch
from authors import AuthorsNetwork, randomize


@pytest.fixture(scope='session')
def authors_network():
    """Builds the authors' ResNet of a depth and kernel size with random weights and statistics."""

    def build(depth=18, k=5):
        torch.manual_seed(depth + k)
        return randomize(AuthorsNetwork(depth, k))

    return build


@pytest.fixture(scope='session')
def authors18(authors_network):
    return authors_network()


@pytest.fixture
def authors_file(authors18, tmp_path):
    """The authors' classification checkpoint of a ResNet-18 with BNET-5."""
    path = tmp_path / 'R18_BNET-5.pth'
    checkpoint = {
        'epoch': 100,
        'state_dict': {f'module.{key}': value for key, value in authors18.state_dict().items()},
        'best_prec1': torch.tensor(71.5),
        'optimizer': {'state': {}, 'param_groups': [{'lr': 0.1}]},
    }
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope='session')
def images():
    return torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(1))
