# As faster_rcnn_r50_bnet5_fpn_ms_2x.py, with a ResNet-101.
_base_ = 'faster_rcnn_r50_bnet5_fpn_ms_2x.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
