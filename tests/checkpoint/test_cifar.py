"""A published CIFAR-10 network, trained by others with BN, on real photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import bnet_mm
from bnet_mm.checkpoint import contents_of, convert, read_checkpoint, verify
from bnet_mm.checkpoint.reference import reference_stages
from bnet_mm.text import without_prefix

CLASSES = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class BasicBlock(nn.Module):
    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.padding = stride, (planes - inplanes) // 2

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return F.relu(out + F.pad(x, (0, 0, 0, 0, self.padding, self.padding)))


class ResNet20(nn.Module):
    """He et al.'s ResNet-20 for CIFAR-10, without parameters in its shortcuts."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for i in (1, 2, 3):
            blocks = [BasicBlock(widths[i - 1], widths[i], 1 if i == 1 else 2)]
            blocks += [BasicBlock(widths[i], widths[i], 1) for _ in range(2)]
            self.add_module(f'layer{i}', nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def stages(self, x):
        stages = [F.relu(self.bn1(self.conv1(x)))]
        for stage in (self.layer1, self.layer2, self.layer3):
            stages.append(stage(stages[-1]))
        return stages[1:]

    def forward(self, x):
        return self.linear(self.stages(x)[-1].mean((2, 3)))


@pytest.fixture(scope='module')
def state(real_data):
    contents = contents_of(read_checkpoint(real_data / 'weights/resnet20-12fca82f.th'))
    return contents.state


@pytest.fixture(scope='module')
def images(real_data):
    """Returns the images as `(N, 3, 32, 32)`, and their classes."""
    files = sorted((real_data / 'cifar10/val').glob('*/*'))
    raw = np.stack([np.asarray(Image.open(file).convert('RGB')) for file in files])
    inputs = (torch.from_numpy(raw).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    labels = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    return inputs.permute(0, 3, 1, 2), labels


def plain_network(state):
    net = ResNet20()
    net.load_state_dict({without_prefix(key, 'module.'): value for key, value in state.items()})
    return net.eval()


def predictions(net, inputs):
    with torch.no_grad():
        return torch.cat([net(part).argmax(1) for part in inputs.split(500)])


@pytest.mark.parametrize('when', ['before', 'after', 'converted'])
def test_bnet_predicts_as_the_trained_network(when, state, images):
    inputs, labels = images
    theirs = predictions(plain_network(state), inputs)
    # 0.92 on CIFAR's own images; these were compressed as JPEG.
    assert (theirs == labels).float().mean() > 0.75
    if when == 'after':
        ours = bnet_mm.enhance(plain_network(state), k=3)
    else:
        ours = bnet_mm.enhance(ResNet20(), k=3).eval()
        tensors = {without_prefix(key, 'module.'): value for key, value in state.items()}
        if when == 'converted':
            found = convert(contents_of({'state_dict': state}), to='torchvision', k=3)
            assert all(stage.equal for stage in verify(state, found))
            tensors.update(found.state)
            tensors = {key: tensors[key] for key in ours.state_dict() if key in tensors}
        ours.load_state_dict(tensors)
    assert torch.equal(predictions(ours, inputs), theirs)


def test_the_reference_has_the_shortcuts_of_cifar_networks(state, images):
    inputs = images[0][:4].double()
    net = plain_network(state).double()
    with torch.no_grad():
        for ours, theirs in zip(reference_stages(state, inputs), net.stages(inputs)):
            torch.testing.assert_close(ours, theirs)
