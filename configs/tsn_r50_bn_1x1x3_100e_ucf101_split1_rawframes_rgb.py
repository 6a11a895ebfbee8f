# As tsn_r50_bn_1x1x3_100e_ucf101_split1_rgb.py, from extracted frames in data/ucf101/rawframes.
_base_ = 'tsn_r50_bn_1x1x3_100e_ucf101_split1_rgb.py'

sampling = dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=3)
decoding = [dict(type='RawFrameDecode'), dict(type='Resize', scale=(-1, 256))]
packing = [dict(type='FormatShape', input_format='NCHW'), dict(type='PackActionInputs')]
train_pipeline = [
    sampling,
    *decoding,
    dict(type='MultiScaleCrop', input_size=224, scales=(1, 0.875, 0.75, 0.66)),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    *packing,
]
val_pipeline = [
    {**sampling, 'test_mode': True},
    *decoding,
    dict(type='CenterCrop', crop_size=224),
    *packing,
]
test_pipeline = [
    {**sampling, 'num_clips': 25, 'test_mode': True},
    *decoding,
    dict(type='TenCrop', crop_size=224),
    *packing,
]

frames = dict(type='RawframeDataset', data_prefix=dict(_delete_=True, img='rawframes'))
train_list, val_list = (f'ucf101_{split}_split_1_rawframes.txt' for split in ('train', 'val'))
train_dataloader = dict(dataset=dict(**frames, ann_file=train_list, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**frames, ann_file=val_list, pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(**frames, ann_file=val_list, pipeline=test_pipeline))
