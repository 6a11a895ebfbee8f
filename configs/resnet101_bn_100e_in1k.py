# ResNet-101 with BN, ImageNet, 100 epochs, batch 256 (paper, table 2). It is MMPretrain's own
# schedule.
_base_ = 'mmpretrain::resnet/resnet101_8xb32_in1k.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))

data_root = 'data/imagenet'
loader = dict(dataset=dict(data_root=data_root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
