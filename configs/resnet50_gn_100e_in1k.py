# ResNet-50 with group normalization, ImageNet, 100 epochs, batch 256 (paper, table 12).
_base_ = 'resnet50_bn_100e_in1k.py'

model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=32)))
