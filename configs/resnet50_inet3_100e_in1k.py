# ResNet-50 with INET-3, instance normalization enhanced as BNET is, ImageNet, 100 epochs, batch
# 256. The paper names it beside the norms of table 12, without figures.
_base_ = 'resnet50_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='INET', k=3)))
