# Bi-Real Net-18 with BN, ImageNet, 256 epochs, batch 512 (paper, table 3). The paper trains as Bi-
# Real Net's authors' PyTorch code does: smoothed labels, PCA lighting and no weight decay are from
# there.
_base_ = 'resnet18_bn_100e_in1k.py'
custom_imports = dict(imports=['bnet_mm'])

model = dict(
    backbone=dict(_delete_=True, type='BiRealNet', depth=18, norm_cfg=dict(type='BN')),
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1)),
)

lighting = dict(
    type='Lighting',
    eigval=[55.4625, 4.7940, 1.1475],
    eigvec=[  # of blue, green and red
        [-0.5836, -0.6948, 0.4203],
        [-0.5808, -0.0045, -0.8140],
        [-0.5675, 0.7192, 0.4009],
    ],
    alphastd=0.1,
)
train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),  # as bytes, lighting would wrap around
    dict(type='RandomResizedCrop', scale=224),
    lighting,
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=0.001))
param_scheduler = dict(
    _delete_=True, type='LinearLR', start_factor=1, end_factor=0, end=256, by_epoch=True
)
train_cfg = dict(max_epochs=256)
auto_scale_lr = dict(base_batch_size=512)
