# TSN R50 with BN, RGB, on UCF-101 split 1: 8 GPUs x 32 clips (paper, table 8). The paper leaves the
# number of epochs open: it is MMAction2's own, 100.
_base_ = 'mmaction::recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')), cls_head=dict(num_classes=101))

data_root = 'data/ucf101/'
train_split = dict(
    data_root=data_root,
    ann_file='ucf101_train_split_1_videos.txt',
    data_prefix=dict(video='videos'),
)
val_split = {**train_split, 'ann_file': 'ucf101_val_split_1_videos.txt'}
train_dataloader = dict(dataset=train_split)
val_dataloader = dict(dataset=val_split)
test_dataloader = dict(dataset=val_split)

optim_wrapper = dict(optimizer=dict(lr=0.001))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=100, by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
]
