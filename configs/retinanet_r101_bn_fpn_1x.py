# RetinaNet R101-FPN with BN, 1x: 8 GPUs x 2 images, COCO (paper, table 13).
_base_ = 'mmdet::retinanet/retinanet_r101_fpn_1x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))
