# ResNet-50 with instance normalization, ImageNet, 100 epochs, batch 256. The paper names it beside
# the norms of table 12, without figures.
_base_ = 'resnet50_bn_100e_in1k.py'

model = dict(backbone=dict(norm_cfg=dict(type='IN', affine=True)))
