# Faster R-CNN R101-FPN with BN, 3x, images scaled to 640-800: 8 GPUs x 2, COCO
# (the paper has only the BNET row; the scales are MMDetection's own).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r101_fpn_ms-3x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
