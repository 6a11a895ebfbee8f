# The paper's TSN, small enough for two CPU cores: a ResNet-18 from random values on the clips that
# `tools/make_demo_data.py ucf101 --out data/demo` draws.
_base_ = '../tsn_r50_bnet3_1x1x3_100e_ucf101_split1_rgb.py'

data_root = 'data/demo/ucf101/'

model = dict(backbone=dict(depth=18, pretrained=None), cls_head=dict(in_channels=512))

sampling = dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=3)
decoding = [dict(type='DecordDecode'), dict(type='Resize', scale=(-1, 128))]
packing = [dict(type='FormatShape', input_format='NCHW'), dict(type='PackActionInputs')]
train_pipeline = [
    dict(type='DecordInit'),
    sampling,
    *decoding,
    dict(type='RandomCrop', size=112),
    dict(type='Flip', flip_ratio=0.5),
    *packing,
]
test_pipeline = [
    dict(type='DecordInit'),
    {**sampling, 'test_mode': True},
    *decoding,
    dict(type='CenterCrop', crop_size=112),
    *packing,
]
train_dataloader = dict(
    batch_size=8, num_workers=2, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=20, val_interval=5)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, eta_min=0)]
default_hooks = dict(checkpoint=dict(interval=20), logger=dict(interval=6))
randomness = dict(seed=0)
