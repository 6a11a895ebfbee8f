# ResNet-50 with SNET-3, switchable normalization enhanced as BNET is, ImageNet, 100 epochs, batch
# 256 (paper, table 12).
_base_ = 'resnet50_sn_100e_in1k.py'

model = dict(backbone=dict(norm_cfg=dict(type='SNET', k=3)))
