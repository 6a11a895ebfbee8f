"""Work dirs as trainings leave them, without training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

EPOCHS = 2


@pytest.fixture
def work_dir(tmp_path):
    """Writes the work dir of a model that was trained for some epochs, with random kernels."""

    def write(name: str, config: Path, options: dict, metrics: dict, seed: int = 0) -> Path:
        from bnet_mm.engine.config import load_config
        from bnet_mm.layers import BNET
        from bnet_mm.openmmlab.models import build_model

        folder = tmp_path / name
        logs = folder / '20261125_080000/vis_data'
        logs.mkdir(parents=True)
        cfg = load_config(config, {**options, 'randomness.seed': seed})
        cfg.dump(folder / f'{name.partition("-")[0]}.py')
        torch.manual_seed(seed)
        model = build_model(cfg)
        for module in model.modules():
            if isinstance(module, BNET):
                nn.init.normal_(module.dw.weight, std=0.3)
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / f'epoch_{EPOCHS}.pth')
        records = []
        for epoch in range(1, EPOCHS + 1):
            step = {'epoch': epoch, 'iter': 5 * epoch, 'step': 5 * epoch}
            records.append({'lr': 0.1, 'loss': (2 + seed) / epoch, 'time': 0.5, **step})
            records.append({**{k: v * epoch for k, v in metrics.items()}, 'step': epoch})
        (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + '\n')
        return folder

    return write
