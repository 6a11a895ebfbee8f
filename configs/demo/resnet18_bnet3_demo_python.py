# The demo's classifier as a config in Python: classes stand where other configs have their names.
from mmengine.dataset import DefaultSampler
from mmengine.optim import CosineAnnealingLR, OptimWrapper
from mmpretrain.datasets import (
    CenterCrop,
    CustomDataset,
    LoadImageFromFile,
    PackInputs,
    RandomFlip,
    RandomResizedCrop,
    ResizeEdge,
)
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import (
    ClsDataPreprocessor,
    CrossEntropyLoss,
    GlobalAveragePooling,
    ImageClassifier,
    LinearClsHead,
    ResNet,
)
from torch.optim import SGD

from bnet_mm import BNET

default_scope = None
model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(
        type=ClsDataPreprocessor,
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type=ResNet, depth=18, norm_cfg=dict(type=BNET, k=3)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(
        type=LinearClsHead,
        num_classes=1000,
        in_channels=512,
        loss=dict(type=CrossEntropyLoss, loss_weight=1.0),
        topk=(1, 5),
    ),
)

data_root = 'data/demo/imagenet'
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(
        type=CustomDataset,
        data_root=data_root,
        data_prefix='train',
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=RandomResizedCrop, scale=96, crop_ratio_range=(0.4, 1.0)),
            dict(type=RandomFlip, prob=0.5, direction='horizontal'),
            dict(type=PackInputs),
        ],
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CustomDataset,
        data_root=data_root,
        data_prefix='val',
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=ResizeEdge, scale=112, edge='short'),
            dict(type=CenterCrop, crop_size=96),
            dict(type=PackInputs),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = dict(type=CosineAnnealingLR, T_max=20, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=5)
val_cfg = dict()
test_cfg = dict()
randomness = dict(seed=0)
