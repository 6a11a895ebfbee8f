# ResNet-50 with GNET-3, group normalization enhanced as BNET is, ImageNet, 100 epochs, batch 256
# (paper, table 12).
_base_ = 'resnet50_gn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='GNET', k=3)))
