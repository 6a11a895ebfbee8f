# MobileNetV2 0.25 with BNET-3 after the 1x1 expansions, ImageNet, 150 epochs, batch 256 (paper,
# table 3).
_base_ = 'mobilenetv2_w025_bn_150e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3)))
