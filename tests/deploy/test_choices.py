"""What a run chooses by comparing values is chosen again, and the values are compared."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from bnet_mm import BNET
from bnet_mm.deploy import fuse
from bnet_mm.deploy.choices import Choices
from bnet_mm.errors import InputError


class Queries(nn.Module):
    """Takes the best places of a map, as detectors by transformers do, and sorts what is there.

    Their scores are apart by less than float32 tells.
    """

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = BNET(8, k=3)

    def forward(self, images):
        places = self.norm(self.conv(images)).flatten(2).transpose(1, 2)
        best = (1 + 1e-9 * places.sum(-1)).topk(5, dim=1)[1]
        chosen = places.gather(1, best[..., None].expand(-1, -1, 8))
        return chosen, chosen.sort(dim=1, descending=True)[0]


def test_close_scores_do_not_make_outputs_differ(trained, monkeypatch):
    torch.manual_seed(0)
    model = trained(Queries())
    assert fuse(model).fusion.folded == {'norm': ['conv']}
    monkeypatch.setattr(Choices, 'repeated', lambda self: nullcontext())
    with pytest.raises(InputError, match=r'in torch\.float32 an output differs by'):
        fuse(model)


def test_values_are_those_of_the_run():
    first, second = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[1.0, 3.0, 2.0]])
    choices = Choices()
    with choices:
        first.topk(2)
        first.sort(0)
        torch.sort(first, stable=True)
    with choices.repeated():
        values, indices = second.topk(2)
        assert indices.tolist() == [[0, 2]] and values.tolist() == [[1.0, 2.0]]
        assert second.sort(0)[1].tolist() == [[0, 0, 0]]
        values, indices = torch.sort(second, stable=True)
        assert indices.tolist() == [[1, 2, 0]] and values.tolist() == [[3.0, 2.0, 1.0]]
        assert second.topk(2)[1].tolist() == [[1, 2]]  # of a run that goes on
    with choices.repeated():
        assert second.topk(3)[1].tolist() == [[1, 2, 0]]  # of a run that chooses another number
