# Faster R-CNN R101-FPN with BNET-7, 1x: 8 GPUs x 2 images, COCO (not in the paper).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=7)))
