# PSPNet R50-d8 with BN, 40k iterations: 8 GPUs x 2 crops of 512x1024, Cityscapes (table 7).
# By its cost the paper's backbone has torchvision's 7x7 stem, where the stock base has three 3x3.
_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'

model = dict(
    pretrained='torchvision://resnet50',
    backbone=dict(type='ResNet', norm_cfg=dict(type='SyncBN')),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
