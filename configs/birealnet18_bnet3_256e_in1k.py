# Bi-Real Net-18 with BNET-3 after the binary convolutions, ImageNet, 256 epochs, batch 512 (paper,
# table 3).
_base_ = 'birealnet18_bn_256e_in1k.py'

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3)))
