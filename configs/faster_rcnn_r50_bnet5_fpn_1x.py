# Faster R-CNN R50-FPN with BNET-5, 1x: table 5 of the paper, 40.1 box AP (BN: 37.5).
# 16 images a batch (8 GPUs x 2), statistics of the norms frozen, COCO in data/coco.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        norm_cfg=dict(type='BNET', k=5),
        # torchvision's BN weights, which BNET takes over without changing the function; for BNET
        # weights of your own, in this package's layout:
        #   --cfg-options model.backbone.init_cfg.checkpoint=resnet50_bnet5.pth
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    )
)
