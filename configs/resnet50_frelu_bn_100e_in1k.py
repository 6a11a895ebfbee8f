# ResNet-50 with BN and FReLU activations, ImageNet, 100 epochs, batch 256 (paper, section 3.3).
_base_ = 'resnet50_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(act_cfg=dict(type='FReLU')))
