# The paper's ResNet-18, small enough for two CPU cores: smaller images, those that
# `tools/make_demo_data.py imagenet --out data/demo` draws.
_base_ = '../resnet18_bnet3_100e_in1k.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=96, crop_ratio_range=(0.4, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=112, edge='short'),
    dict(type='CenterCrop', crop_size=96),
    dict(type='PackInputs'),
]
data_root = 'data/demo/imagenet'
train_dataloader = dict(
    batch_size=16, num_workers=2, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=20, num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=0.05))
train_cfg = dict(max_epochs=20, val_interval=5)
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=20, by_epoch=True)
default_hooks = dict(checkpoint=dict(interval=20), logger=dict(interval=10))
randomness = dict(seed=0)
