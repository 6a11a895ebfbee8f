"""The last checkpoint survives a job that dies while it saves the next."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import bnet_mm.engine.additions  # noqa: F401  (registers the hook)
from bnet_mm.engine.checkpoint_hook import WholeCheckpointHook


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.linear(inputs)
        return {'loss': out.mean()} if mode == 'loss' else out


def runner(work_dir) -> Runner:
    return Runner(
        Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.ones(2))] * 2,
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='WholeCheckpointHook', interval=1, max_keep_ckpts=1)
        ),
        experiment_name=work_dir.name,
        log_level='ERROR',
    )


def test_keeps_the_number_asked_for(tmp_path):
    runner(tmp_path).train()
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_3.pth']


def test_a_job_that_dies_while_saving_leaves_the_one_before(tmp_path, monkeypatch):
    job = runner(tmp_path)
    save = job.save_checkpoint

    def dies_at_the_second(out_dir, filename, *args, **kwargs):
        if filename == 'epoch_2.pth':
            raise KeyboardInterrupt
        save(out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(job, 'save_checkpoint', dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        job.train()
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']


def test_in_a_copy_the_best_checkpoint_of_the_original_is_kept(tmp_path):
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    for folder in (original, copy):
        folder.mkdir()
        (folder / 'best_acc_epoch_1.pth').touch()
    job = runner(copy)
    job.message_hub.update_info('best_ckpt', str(original / 'best_acc_epoch_1.pth'))
    hook = WholeCheckpointHook(save_best='acc', rule='greater')
    hook.before_train(job)
    assert hook.best_ckpt_path == str(copy / 'best_acc_epoch_1.pth')
    (copy / 'best_acc_epoch_1.pth').unlink()
    hook.before_train(job)
    assert hook.best_ckpt_path is None
