# ResNet-50 with BN and AutoAugment's policy for ImageNet, 270 epochs, batch 256 (paper, table 4).
_base_ = 'resnet50_bn_autoaug_100e_in1k.py'

param_scheduler = dict(milestones=[80, 160, 240])
train_cfg = dict(max_epochs=270)
