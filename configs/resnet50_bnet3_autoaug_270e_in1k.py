# ResNet-50 with BNET-3 and AutoAugment's policy for ImageNet, 270 epochs, batch 256 (paper, table
# 4).
_base_ = 'resnet50_bn_autoaug_270e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3)))
