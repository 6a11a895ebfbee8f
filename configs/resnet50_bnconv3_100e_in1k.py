# ResNet-50 with BN, ReLU and a 3x3 depthwise convolution where the others have BNET-3: the control
# of the paper's table 11. ImageNet, 100 epochs, batch 256.
_base_ = 'resnet50_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNControl', k=3)))
