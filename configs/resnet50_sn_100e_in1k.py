# ResNet-50 with switchable normalization, ImageNet, 100 epochs, batch 256 (paper, table 12).
_base_ = 'resnet50_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='SN')))

# Evaluation has the average of the statistics over batches, as the paper of SN.
custom_hooks = [dict(type='PreciseBNHook', num_samples=8192, priority='ABOVE_NORMAL')]
