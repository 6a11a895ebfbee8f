# ResNeXt-50 32x4d with BNET-3, ImageNet, 100 epochs, batch 256 (paper, table 2).
_base_ = 'resnext50_32x4d_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3)))
