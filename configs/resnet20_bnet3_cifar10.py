# ResNet-20 with BNET-3 on CIFAR-10, 200 epochs, batch 128.
_base_ = 'resnet20_bn_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3)))
