# Faster R-CNN R50-FPN with BN, 2x, images scaled to 480-960: 8 GPUs x 2, COCO (the baseline of
# what the paper's authors released beside the paper; 24 epochs, decay at 16 and 22).
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(type='BN')))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=[(1333, 480), (1333, 960)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
