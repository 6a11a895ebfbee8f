"""The study's networks as backbones of OpenMMLab's detectors and segmentors."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from bnet_study.starts import start_net


@MODELS.register_module()
class StudyBackbone(BaseModule):
    """The network of a run, giving the map of each stage.

    Args:
        config, seed: of the run.
        weights: the file that it starts from, or None.
        frozen: whether norms keep their statistics, and stem and first stage their weights, as
            the paper's detectors do.

    Shape:
        input `(N, 3, H, W)`; output a tuple of `(N, C_i, H / s_i, W / s_i)`, a map for each stage.
    """

    def __init__(self, config: dict[str, Any], seed: int, weights: str | None, frozen: bool):
        super().__init__()
        random = torch.get_rng_state()  # the rest of the model is the same for all arms
        self.net = start_net(config, seed, 1, weights)
        torch.set_rng_state(random)
        del self.net.fc
        self.frozen = frozen
        if frozen:
            for part in (self.net.conv1, self.net.bn1, self.net.layer1):
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> StudyBackbone:
        super().train(mode)
        if mode and self.frozen:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.net.stage_maps(x)

    def channels(self) -> list[int]:
        """Returns the channels of each map."""
        was = self.training
        self.eval()
        with torch.no_grad():
            maps = self(torch.zeros(1, 3, 64, 64))
        self.train(was)
        return [one.shape[1] for one in maps]
