# TSN R50 with BNET-5, RGB, on UCF-101 split 1: extracted frames, 8 GPUs x 32 clips (table 8).
_base_ = 'tsn_r50_bn_1x1x3_100e_ucf101_split1_rawframes_rgb.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(backbone=dict(norm_cfg=dict(type='BNET', k=5)))
