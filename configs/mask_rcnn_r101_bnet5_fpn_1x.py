# Mask R-CNN R101-FPN with BNET-5, 1x: 8 GPUs x 2 images, COCO (paper, table 6).
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=5)))
