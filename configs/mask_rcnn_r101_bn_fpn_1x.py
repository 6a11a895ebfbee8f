# Mask R-CNN R101-FPN with BN, 1x: 8 GPUs x 2 images, COCO (paper, table 6).
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
