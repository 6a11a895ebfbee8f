# Faster R-CNN R50-FPN with BNET-3 and FReLU activations, 1x: 8 GPUs x 2 images, COCO (paper,
# section 3.3). No weights of such a backbone are published: it is the one that
# resnet50_frelu_bnet3_100e_in1k trains.
_base_ = 'faster_rcnn_r50_bnet3_fpn_1x.py'

weights = 'work_dirs/resnet50_frelu_bnet3_100e_in1k/epoch_100.pth'
model = dict(
    backbone=dict(act_cfg=dict(type='FReLU'), init_cfg=dict(type='Pretrained', checkpoint=weights))
)
