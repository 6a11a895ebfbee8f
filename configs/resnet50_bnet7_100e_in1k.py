# ResNet-50 with BNET-7, ImageNet, 100 epochs, batch 256 (the backbone of the paper's tables 5 and
# 14).
_base_ = 'resnet50_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=7)))
