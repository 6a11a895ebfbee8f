# ResNet-20 with BN on CIFAR-10, 200 epochs, batch 128: for those without ImageNet; not in the
# paper. Networks, schedule and the normalization of images are those of He et al. and of their
# most used published weights, which --cfg-options load_from=FILE starts from.
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(
    backbone=dict(_delete_=True, type='CifarResNet', depth=20, norm_cfg=dict(type='BN')),
    head=dict(in_channels=64),
)
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])

data_root = 'data/cifar10'
train_dataloader = dict(batch_size=128, dataset=dict(type='CIFAR10Folders', data_root=data_root))
val_dataloader = dict(batch_size=256, dataset=dict(type='CIFAR10Folders', data_root=data_root))
test_dataloader = val_dataloader

default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=3))
