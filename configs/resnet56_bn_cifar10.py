# ResNet-56 with BN on CIFAR-10, 200 epochs, batch 128.
_base_ = 'resnet20_bn_cifar10.py'

model = dict(backbone=dict(depth=56))
