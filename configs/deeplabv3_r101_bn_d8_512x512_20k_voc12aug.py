# DeepLabV3 R101-d8 with BN: 4 GPUs x 4 crops of 512x512, VOC 2012 aug (paper, table 15; the
# iterations, which it leaves open, are MMSegmentation's first choice, and the stem is PSPNet's).
_base_ = 'mmseg::deeplabv3/deeplabv3_r101-d8_4xb4-20k_voc12aug-512x512.py'

model = dict(
    pretrained='torchvision://resnet101',
    backbone=dict(type='ResNet', norm_cfg=dict(type='SyncBN')),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
