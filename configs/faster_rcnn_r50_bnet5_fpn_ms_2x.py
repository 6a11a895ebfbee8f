# Faster R-CNN R50-FPN with BNET-5, 2x, images scaled to 480-960: 8 GPUs x 2, COCO (released by
# the paper's authors beside the paper).
_base_ = 'faster_rcnn_r50_bn_fpn_ms_2x.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=5)))
