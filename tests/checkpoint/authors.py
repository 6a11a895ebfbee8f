"""A plain definition of the paper's authors' network, and of what their checkpoints are made of."""

from __future__ import annotations

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck


class AuthorsBNET(nn.BatchNorm2d):
    """Batch normalization and then a depthwise convolution (paper, algorithm 1)."""

    def __init__(self, channels, k):
        super().__init__(channels, affine=False)
        self.bnconv = nn.Conv2d(channels, channels, k, padding=k // 2, groups=channels)

    def forward(self, x):
        return self.bnconv(super().forward(x))


class AuthorsNetwork(nn.Module):
    """A torchvision ResNet whose blocks end with `bnet2` or `bnet3`; returns its four stages."""

    def __init__(self, depth, k):
        super().__init__()
        net = getattr(torchvision.models, f'resnet{depth}')()
        for name, child in net.named_children():
            self.add_module(name, child)
        self.last = 3 if depth > 34 else 2
        for block in self.modules():
            if isinstance(block, (BasicBlock, Bottleneck)):
                channels = block._modules.pop(f'bn{self.last}').num_features
                block.add_module(f'bnet{self.last}', AuthorsBNET(channels, k))

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = self.run_block(block, x)
            stages.append(x)
        return stages

    def run_block(self, block, x):
        shortcut = x if block.downsample is None else block.downsample(x)
        for i in range(1, self.last + 1):
            norm = getattr(block, f'bnet{i}' if i == self.last else f'bn{i}')
            x = norm(getattr(block, f'conv{i}')(x))
            if i < self.last:
                x = block.relu(x)
        return block.relu(x + shortcut)


def randomize(net, seed=0):
    """Gives every norm of a network random statistics, scales and shifts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.num_batches_tracked.fill_(7)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.2, generator=generator)
    net.eval()  # OpenMMLab's backbones return None
    return net


def stages_of(net, images):
    """Returns the four stages of a torchvision network."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    stages = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        stages.append(x)
    return stages


def older_names(state):
    """Renames an authors' state dict as their first detectors have it."""
    return {
        key.replace('.bnet2.bnconv', '.bnconv2')
        .replace('.bnet3.bnconv', '.bnconv3')
        .replace('.bnet', '.bn'): value
        for key, value in state.items()
    }
