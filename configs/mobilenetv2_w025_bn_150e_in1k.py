# MobileNetV2 0.25 with BN, ImageNet, 150 epochs, batch 256 (paper, table 3).
_base_ = 'mobilenetv2_w100_bn_150e_in1k.py'

model = dict(backbone=dict(widen_factor=0.25))
