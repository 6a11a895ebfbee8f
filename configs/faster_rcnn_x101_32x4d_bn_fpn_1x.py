# Faster R-CNN X101-32x4d-FPN with BN, 1x: 8 GPUs x 2 images, COCO (paper, table 5).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_x101-32x4d_fpn_1x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
