# Faster R-CNN R50-FPN with BNET-5, 3x, images scaled to 640-800: 8 GPUs x 2, COCO
# (paper, table 5; the scales are MMDetection's own).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_ms-3x_coco.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=5)))
