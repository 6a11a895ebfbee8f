# ResNet-50 with BN and AutoAugment's policy for ImageNet, 100 epochs, batch 256 (paper, table 4).
_base_ = 'resnet50_bn_100e_in1k.py'

fill = [104, 116, 124]  # the mean colour, BGR
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='AutoAugment',
        policies='imagenet',
        hparams=dict(pad_val=fill, interpolation='bicubic'),
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
