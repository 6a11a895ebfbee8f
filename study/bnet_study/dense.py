"""Detection and segmentation: this package's engine, with a config made from a run."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import torch

from bnet_mm.analysis.learnt_kernels import learnt_kernels
from bnet_mm.analysis.runs import read_run
from bnet_mm.checkpoint import latest_checkpoint
from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.engine.launch import train
from bnet_mm.errors import InputError
from bnet_study.backbone import StudyBackbone
from bnet_study.coco_layout import find_detection
from bnet_study.plan import Run
from bnet_study.starts import save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
DETECTOR = REPOSITORY / 'configs' / 'faster_rcnn_r50_bn_fpn_1x.py'
SEGMENTOR = REPOSITORY / 'configs' / 'pspnet_r50_bn_d8_512x1024_40k_cityscapes.py'
REGIONS = 128  # that a Faster R-CNN samples from an image: RoIAlign is slow on CPUs
CLIP = dict(max_norm=35, norm_type=2)
# What mmengine calls them, and how they are called in results; percent.
METRICS = {
    'coco/bbox_mAP': ('ap', 100), 'coco/bbox_mAP_50': ('ap50', 100),
    'coco/bbox_mAP_75': ('ap75', 100), 'coco/bbox_mAP_s': ('ap_s', 100),
    'coco/bbox_mAP_m': ('ap_m', 100), 'coco/bbox_mAP_l': ('ap_l', 100),
    'mIoU': ('miou', 1), 'mAcc': ('macc', 1), 'aAcc': ('aacc', 1),
}  # fmt: skip


def train_dense(
    run: Run, data: Path, weights: Path | None, folder: Path, device: torch.device
) -> dict[str, Any]:
    """Trains a detector or a segmentor to its end, from its last checkpoint on.

    Args:
        run: of kind 'detection' or 'segmentation'.
        data: the folder of its data.
        weights: the file that its backbone starts from, or None.
        folder: for its checkpoints and its weights.
        device: where it computes.

    Returns:
        `test`, in percent (`ap`, `ap50`, ... of COCO; `miou`, ...), and the rest as
        `train_classifier` returns it.

    Raises:
        InputError: the data are not there, or are something else.
    """
    backbone = dict(
        _delete_=True,
        type='StudyBackbone',
        config=run.config,
        seed=run.seed,
        weights=None if weights is None else str(weights),
        frozen=run.config['task']['frozen'] and weights is not None,
    )
    make = dict(detection=_detector, segmentation=_segmentor)[run.kind]
    options, images = make(run, data, folder, backbone)
    options.update(
        optim_wrapper=dict(
            _delete_=True,
            type='OptimWrapper' if device.type == 'cpu' else 'AmpOptimWrapper',
            optimizer=dict(
                type='SGD',
                lr=run.config['task']['lr'],
                momentum=0.9,
                weight_decay=run.config['task']['weight_decay'],
            ),
            clip_grad=CLIP,
            paramwise_cfg=dict(
                custom_keys={
                    'dw.weight': dict(
                        lr_mult=run.config['arm'].get('kernel_lr', 1.0),
                        decay_mult=run.config['arm'].get('kernel_decay', 1.0),
                    )
                }
            ),
        ),
        work_dir=str(folder / 'training'),
        custom_imports=dict(imports=['bnet_mm', 'bnet_study.backbone']),
    )
    base = DETECTOR if run.kind == 'detection' else SEGMENTOR
    cfg = load_config(base)
    cfg.merge_from_dict(options)
    set_run_options(cfg, config_path=base, work_dir=str(folder / 'training'), seed=run.seed)
    runner = train(cfg, resume='auto')
    history = read_run(folder / 'training')
    last = history.validation[max(history.validation)]
    model = runner.model
    digest = save_weights(model, folder)
    checkpoint = latest_checkpoint(folder / 'training')
    if checkpoint is not None:
        Path(checkpoint).unlink()
    main = 'coco/bbox_mAP' if run.kind == 'detection' else 'mIoU'
    name, factor = METRICS[main]
    hours = history.hours()
    for step, value in history.series(main).items():
        print(f'{run.name} {name} {factor * value:.2f} after {step}', flush=True)
    return dict(
        test={
            METRICS[key][0]: round(value * METRICS[key][1], 4)
            for key, value in last.items()
            if key in METRICS
        },
        curve={
            'loss': [round(value, 4) for value in history.loss().values()],
            name: [round(factor * v, 4) for v in history.series(main).values()],
            'seconds': [round(3600 * value, 1) for value in hours.values()],
        },
        seconds=round(3600 * hours[max(hours)], 1),
        parameters=sum(p.numel() for p in model.parameters()),
        kernels={found.layer: round(found.outside, 4) for found in learnt_kernels(model)},
        weights=digest,
        images=list(images),
    )


def _detector(
    run: Run, data: Path, folder: Path, backbone: dict
) -> tuple[dict[str, Any], tuple[int, int]]:
    task = run.config['task']
    found = find_detection(data, folder)
    if found.remark:
        print(found.remark, flush=True)
    width, epochs = task['width'], round(task['epochs'] * run.config['arm']['longer'])
    scale = tuple(task['scale'])
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    resize = dict(type='Resize', scale=scale, keep_ratio=True)
    pack = dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    )

    def loader(split: str, pipeline: list[dict], **options: Any) -> dict[str, Any]:
        return dict(
            num_workers=0,
            persistent_workers=False,
            dataset=dict(
                _delete_=True,
                type='CocoDataset',
                metainfo=dict(classes=found.classes),
                ann_file=str(found.annotations[split].resolve()),
                data_prefix=dict(img=str(found.photos[split].resolve())),
                filter_cfg=dict(filter_empty_gt=True) if split == 'train' else None,
                test_mode=split != 'train',
                pipeline=pipeline,
            ),
            **options,
        )

    training = [*load, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
    steps = ceil(found.images[0] / task['batch'])
    total = steps * epochs
    warmup = min(steps, max(1, total // 4))  # an epoch, of four or more
    evaluator = dict(ann_file=str(found.annotations['test'].resolve()))
    options = dict(
        model=dict(
            backbone=backbone,
            neck=dict(in_channels=_channels(run), out_channels=width),
            rpn_head=dict(in_channels=width, feat_channels=width),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=width),
                bbox_head=dict(
                    in_channels=width,
                    fc_out_channels=task.get('head', 2 * width),
                    num_classes=len(found.classes),
                ),
            ),
            train_cfg=dict(rcnn=dict(sampler=dict(num=task.get('regions', REGIONS)))),
        ),
        train_dataloader=loader('train', training, batch_size=task['batch']),
        val_dataloader=loader('test', [load[0], resize, load[1], pack]),
        test_dataloader=loader('test', [load[0], resize, load[1], pack]),
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_cfg=dict(max_epochs=epochs, val_interval=interval(epochs)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
            dict(type='CosineAnnealingLR', T_max=total - warmup, by_epoch=False, begin=warmup,
                 end=total),
        ],
        default_hooks=dict(
            logger=dict(interval=max(1, steps // 2)), checkpoint=dict(max_keep_ckpts=1)
        ),
    )  # fmt: skip
    return options, found.images


def _segmentor(
    run: Run, data: Path, folder: Path, backbone: dict
) -> tuple[dict[str, Any], tuple[int, int]]:
    task = run.config['task']
    images = tuple(len(list(data.glob(f'leftImg8bit/{s}/*/*.png'))) for s in ('train', 'val'))
    if not all(images):
        raise InputError(
            f'{data} has no photos leftImg8bit/train/CITY/*.png and leftImg8bit/val/CITY/*.png'
        )
    crop, width, channels = tuple(task['crop']), task['width'], _channels(run)
    iterations = round(task['iterations'] * run.config['arm']['longer'])
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    training = [
        *load,
        dict(type='RandomResize', scale=(2 * crop[1], 2 * crop[0]), ratio_range=(0.5, 1.5),
             keep_ratio=True),
        dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackSegInputs'),
    ]  # fmt: skip
    testing = [*load, dict(type='PackSegInputs')]
    root = str(data.resolve())

    def loader(pipeline: list[dict], **options: Any) -> dict[str, Any]:
        dataset = dict(data_root=root, pipeline=pipeline)
        return dict(num_workers=0, persistent_workers=False, dataset=dataset, **options)

    options = dict(
        model=dict(
            pretrained=None,
            data_preprocessor=dict(size=crop),
            backbone=backbone,
            neck=dict(type='FPN', in_channels=channels, out_channels=width, num_outs=len(channels)),
            decode_head=dict(
                _delete_=True,
                type='FPNHead',
                in_channels=[width] * len(channels),
                in_index=list(range(len(channels))),
                feature_strides=[4 * 2**i for i in range(len(channels))],
                channels=width,
                num_classes=19,
                norm_cfg=dict(type='BN'),
                align_corners=False,
                loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            ),
            auxiliary_head=None,
        ),
        train_dataloader=loader(training, batch_size=task['batch']),
        val_dataloader=loader(testing),
        test_dataloader=loader(testing),
        train_cfg=dict(max_iters=iterations, val_interval=interval(iterations)),
        param_scheduler=[
            dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=iterations, by_epoch=False)
        ],
        default_hooks=dict(
            logger=dict(interval=max(1, iterations // 20)),
            checkpoint=dict(interval=interval(iterations), max_keep_ckpts=1),
        ),
    )
    return options, images


def interval(total: int) -> int:
    """Returns how often to evaluate: about four times, the last of them at the end.

    Example:
        >>> [interval(epochs) for epochs in (1, 9, 12, 13)]
        [1, 3, 3, 13]
    """
    return next(i for i in range(ceil(total / 4), total + 1) if total % i == 0)


def _channels(run: Run) -> list[int]:
    return StudyBackbone(run.config, run.seed, None, False).channels()
