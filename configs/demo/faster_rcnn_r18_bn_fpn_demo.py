# The demo's detector with plain batch normalization, to compare with.
_base_ = './faster_rcnn_r18_bnet5_fpn_demo.py'
model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='BN')))
