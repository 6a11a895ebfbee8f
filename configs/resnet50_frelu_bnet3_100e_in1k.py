# ResNet-50 with BNET-3 and FReLU activations, ImageNet, 100 epochs, batch 256 (paper, section 3.3).
_base_ = 'resnet50_frelu_bn_100e_in1k.py'

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=3)))
