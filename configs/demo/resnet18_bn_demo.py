# The demo's classifier with plain batch normalization, to compare with.
_base_ = './resnet18_bnet3_demo.py'
model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='BN')))
