# ResNet-56 with BNET-3 on CIFAR-10, 200 epochs, batch 128.
_base_ = 'resnet56_bn_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3)))
