# ResNet-20 with BN, ReLU and a 3x3 depthwise convolution where the other has BNET-3, on CIFAR-10,
# 200 epochs, batch 128: the control of the paper's table 11.
_base_ = 'resnet20_bn_cifar10.py'

model = dict(backbone=dict(norm_cfg=dict(type='BNControl', k=3)))
