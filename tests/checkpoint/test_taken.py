"""What a network has of a file is told by values, whatever the names."""

from __future__ import annotations

import torch
from torchvision.models import resnet18

from bnet_mm import enhance
from bnet_mm.checkpoint import taken_from


def trained():
    torch.manual_seed(0)
    state = resnet18(num_classes=3).state_dict()
    return {
        name: value.uniform_(0.5, 1.5) if value.is_floating_point() else value
        for name, value in state.items()
    }


def test_of_another_file_nothing_is_taken_though_all_begin_with_ones_and_zeros():
    file = resnet18(num_classes=3).state_dict()
    for model in (resnet18(num_classes=3), enhance(resnet18(num_classes=3), k=3)):
        taken = taken_from(file, model)
        assert taken.count == 0 and taken.total == 102
        assert len(taken.left) == 102


def test_kernels_are_found_as_scales_and_as_kernels():
    file, model = trained(), enhance(resnet18(num_classes=3), k=5)
    model.load_state_dict(file)
    taken = taken_from(file, model)
    assert (taken.count, taken.missing, taken.left) == (102, [], [])
    torch.nn.init.uniform_(model.layer1[0].bn2.dw.weight)
    assert taken_from(file, model).missing == ['layer1.0.bn2.dw.weight']
    assert taken_from(file, model).left == ['layer1.0.bn2.weight']
    assert taken_from(model.state_dict(), model).missing == []


def test_names_and_types_do_not_matter():
    file, model = trained(), resnet18(num_classes=3)
    model.load_state_dict({k: v.half() if v.is_floating_point() else v for k, v in file.items()})
    renamed = {f'a.{i}': v.half() for i, v in enumerate(file.values()) if v.ndim}
    assert taken_from(renamed, model).missing == []
    del renamed['a.0']
    assert taken_from(renamed, model).missing == ['conv1.weight']
    assert taken_from({**renamed, 'more': torch.rand(7)}, model).left == ['more']
