# ResNet-50 with BNET-3 after the 3x3 convolution of each block, ImageNet, 100 epochs, batch 256
# (paper, table 10).
_base_ = 'resnet50_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3, positions='B')))
