# MobileNetV2 1.0 with BN, ImageNet, 150 epochs, batch 256 (paper, table 3).
_base_ = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))

data_root = 'data/imagenet'
loader = dict(dataset=dict(data_root=data_root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader

optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=150, by_epoch=True)
train_cfg = dict(max_epochs=150)
