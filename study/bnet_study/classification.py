"""Trains and tests a classifier, an epoch at a time, and goes on where it was stopped."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnet_mm.analysis.learnt_kernels import learnt_kernels
from bnet_mm.checkpoint.atomic import write_whole
from bnet_study.arms import parameter_groups
from bnet_study.augment import Batches
from bnet_study.images import Images
from bnet_study.measures import CORRUPTIONS, accuracy, calibration_error, corrupted
from bnet_study.plan import Run
from bnet_study.starts import save_weights, start_net

MOMENTUM = 0.9
TEST_BATCH = 250
STATE = 'state.pth'


def train_classifier(
    run: Run, images: Images, weights: Path | None, folder: Path, device: torch.device
) -> dict[str, Any]:
    """Trains a run to its end, from its last whole epoch on, and returns what it gave.

    Args:
        run: of kind 'classification'.
        images: its data.
        weights: the file that it starts from, or None.
        folder: for its state and its weights.
        device: where it computes.

    Returns:
        `test`: top-1 accuracy, calibration error, cross entropy, and accuracies on corrupted
        photos, in percent; `curve`: by epoch the training loss, the test accuracy, and the seconds
        of training until then; `seconds`, of training alone; `parameters`; `kernels`, the share of
        energy outside the centre tap by layer; `weights`, the SHA-256 of the tensors.
    """
    task = run.config['task']
    train = Batches(*images.train, device)
    test = Batches(*images.test, device)
    test.mean, test.std = train.mean, train.std
    net = start_net(run.config, run.seed, len(images.classes), weights).to(device)
    net.to(memory_format=torch.channels_last)
    groups = parameter_groups(net, run.config['arm'], task['weight_decay'])
    optimizer = torch.optim.SGD(groups, task['lr'], MOMENTUM)
    epochs = round(task['epochs'] * run.config['arm']['longer'])
    steps = max(1, len(train.photos) // task['batch'])
    curve: dict[str, list[float]] = dict(loss=[], top1=[], seconds=[])
    state = folder / STATE
    if state.is_file():
        saved = torch.load(state, map_location=device, weights_only=True)
        net.load_state_dict(saved['net'])
        optimizer.load_state_dict(saved['optimizer'])
        curve = saved['curve']
        print(f'{run.name} goes on after epoch {len(curve["loss"])} of {epochs}', flush=True)
    for epoch in range(len(curve['loss']), epochs):
        begun = time.perf_counter()
        net.train()
        losses = []
        batches = train.training(
            task['batch'], task['train_size'], task['augment'], run.seed, epoch
        )
        for step, (x, y) in enumerate(batches):
            rate = learning_rate(task['lr'], epoch + step / steps, epochs, task['warmup'])
            for group in optimizer.param_groups:
                group['lr'] = rate * group['factor']
            with precision(device):
                loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        curve['loss'].append(torch.stack(losses).mean().item())
        before = curve['seconds'][-1] if epoch else 0.0
        curve['seconds'].append(before + time.perf_counter() - begun)
        curve['top1'].append(accuracy(*answers(net, test, device)))
        print(
            f'{run.name} epoch {epoch + 1}/{epochs} loss {curve["loss"][-1]:.3f} '
            f'top-1 {curve["top1"][-1]:.2f} {curve["seconds"][-1]:.0f} s',
            flush=True,
        )
        saved = dict(net=net.state_dict(), optimizer=optimizer.state_dict(), curve=curve)
        write_whole(state, lambda part, saved=saved: torch.save(saved, part))
    logits, labels = answers(net, test, device)
    measured = dict(
        top1=accuracy(logits, labels),
        ece=calibration_error(logits, labels),
        nll=F.cross_entropy(logits, labels).item(),
    )
    for kind in CORRUPTIONS:
        measured[f'top1_{kind}'] = accuracy(*answers(net, test, device, kind))
    digest = save_weights(net, folder)
    state.unlink(missing_ok=True)
    return dict(
        test={key: round(value, 4) for key, value in measured.items()},
        curve={key: [round(v, 4) for v in values] for key, values in curve.items()},
        seconds=round(curve['seconds'][-1], 3),
        parameters=sum(p.numel() for p in net.parameters()),
        kernels={found.layer: round(found.outside, 4) for found in learnt_kernels(net)},
        weights=digest,
        images=[len(train.photos), len(test.photos)],
        digest=images.digest,
    )


def learning_rate(peak: float, epoch: float, epochs: int, warmup: float) -> float:
    """Returns the learning rate at an epoch and its part: linear warm-up, then a cosine to zero.

    Example:
        >>> [round(learning_rate(0.1, e, 20, 1), 3) for e in (0.5, 1, 10.5, 20)]
        [0.05, 0.1, 0.05, 0.0]
    """
    if epoch < warmup:
        return peak * max(epoch, 1e-3) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1e-9)))


def precision(device: torch.device) -> Any:
    """Returns the context of computing: bfloat16 on GPUs, float32 on CPUs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == 'cuda')


@torch.no_grad()
def answers(
    net: nn.Module, test: Batches, device: torch.device, corruption: str | None = None
) -> tuple[Tensor, Tensor]:
    """Returns logits `(N, classes)` of all test photos, and their labels `(N,)`."""
    net.eval()
    logits, labels = [], []
    for i, (x, y) in enumerate(test.testing(TEST_BATCH)):
        if corruption:
            x = corrupted(x, corruption, i)
        with precision(device):
            logits.append(net(test.normalized(x)).float())
        labels.append(y)
    return torch.cat(logits), torch.cat(labels)
