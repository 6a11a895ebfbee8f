"""Work dirs of classifiers, of two norms and three seeds each, as trainings log them."""

import json
from pathlib import Path

import pytest

CONFIG = """
model = dict(backbone=dict(type='ResNet', norm_cfg=dict(type={norm!r}{k})))
randomness = dict(seed={seed})
"""
ACCURACY = {  # by norm and seed, epoch by epoch
    ('BN', 0): [50.0, 60.0, 58.0],
    ('BN', 1): [51.0, 61.0, 60.0],
    ('BN', 2): [49.0, 59.0, 59.5],
    ('BNET', 0): [55.0, 62.0, 63.0],
    ('BNET', 1): [54.0, 63.0, 63.5],
    ('BNET', 2): [56.0, 60.0, 62.0],
}


@pytest.fixture(scope='session')
def write_run():
    """Writes a work dir's logs and config, without a training."""

    def write(folder: Path, norm: str, seed: int | None, values: list[float], first=1, time='1'):
        name = f'resnet50_{norm.lower()}{"3" if norm == "BNET" else ""}_100e_in1k'
        logs = folder / f'2026_{time}/vis_data'
        logs.mkdir(parents=True)
        text = CONFIG.format(norm=norm, k=', k=3' if norm == 'BNET' else '', seed=seed)
        (folder / f'{name}.py').write_text(text)
        lines = []
        for epoch, value in enumerate(values, first):
            for i in (1, 2):
                step = 2 * (epoch - 1) + i
                record = {'epoch': epoch, 'iter': step, 'step': step, 'time': 1.8}
                lines.append({'lr': 0.1, 'loss': 3 / step, **record})
            lines.append(
                {'accuracy/top1': value, 'accuracy/top5': value + 9, 'time': 1, 'step': epoch}
            )
        (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
        return folder

    return write


@pytest.fixture
def runs(write_run, tmp_path):
    """Three seeds of a BN network and of its BNET-3 twin."""
    return [write_run(tmp_path / f'{n}_{s}', n, s, v) for (n, s), v in ACCURACY.items()]
