"""Runs a model of any OpenMMLab library once, on an empty picture or clip, without a dataset."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from bnet_mm.errors import InputError

# Height and width where a config names none: COCO's as the paper counts them, Cityscapes' crop,
# and ImageNet's, which are UCF-101's too.
SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 1024), 'mmaction': (224, 224)}
DEFAULT_SHAPE = (224, 224)
CIFAR_SHAPE = (32, 32)
PROPOSALS = 1000


def input_shape(cfg: Config) -> tuple[int, int]:
    """Returns the (height, width) a model is counted at unless the user says otherwise."""
    size = ((cfg.get('model') or {}).get('data_preprocessor') or {}).get('size')
    if cfg.get('default_scope') == 'mmseg' and isinstance(size, (tuple, list)):
        return tuple(size)
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    if 'CIFAR' in str(dataset.get('type')):
        return CIFAR_SHAPE
    return SHAPES.get(cfg.get('default_scope'), DEFAULT_SHAPE)


def build(cfg: Config, device: str) -> nn.Module:
    """Builds the model of `cfg` on `device`, for inference."""
    with torch.device(device), MODELS.switch_scope_and_registry(cfg.get('default_scope')) as models:
        model = models.build(deepcopy(cfg.model))  # mmseg writes into what it is built from
    model.eval()
    return model


def forward(model: nn.Module, cfg: Config, shape: tuple[int, int]) -> object:
    """Runs `model` on one empty picture, or one clip, of `shape` (height, width).

    The picture is made on torch's default device, which must be the model's.
    A two-stage detector classifies 1000 proposals, however many its first stage would find.

    Raises:
        InputError: the model cannot be run on a picture alone.
    """
    scope = cfg.get('default_scope')
    picture = torch.zeros(1, 3, *shape)
    if scope == 'mmdet':
        from mmdet.structures import DetDataSample

        size = {'img_shape': shape, 'pad_shape': shape, 'ori_shape': shape}
        sample = DetDataSample(
            metainfo={**size, 'batch_input_shape': shape, 'scale_factor': (1.0, 1.0)}
        )
        with _fixed_proposals(model):
            return model(picture, [sample], mode='tensor')
    if scope == 'mmaction':
        # A network that shifts between frames wants as many as it shifts between.
        clip = picture[:, None].expand(1, getattr(model.backbone, 'num_segments', 1), 3, *shape)
        if type(model).__name__ == 'Recognizer3D':
            clip = torch.zeros(1, 1, 3, _clip_length(cfg), *shape)
        return model(clip, mode='tensor', stage='head')
    return model(picture, mode='tensor')


def _clip_length(cfg: Config) -> int:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    for step in dataset.get('pipeline') or []:
        if 'clip_len' in step:
            return step['clip_len']
    raise InputError(
        'a 3-D recognizer is counted at the clip_len of its test pipeline, which is missing'
    )


@contextmanager
def _fixed_proposals(model: nn.Module) -> Iterator[None]:
    """Gives a two-stage detector's second stage as many proposals as the paper's counter does."""
    replaced = []
    rpn = getattr(model, 'rpn_head', None)
    if rpn is not None and hasattr(model, 'roi_head'):
        replaced.append((rpn, 'predict', partial(_proposals, rpn)))
    for module in model.modules():
        if hasattr(module, 'roi_layers') and hasattr(module, 'out_channels'):
            replaced.append((module, 'forward', partial(_regions, module)))
    for owner, name, function in replaced:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name, _ in replaced:
            delattr(owner, name)


def _proposals(rpn: nn.Module, features: tuple[Tensor, ...], *args, **kwargs) -> list[InstanceData]:
    rpn(features)
    return [InstanceData(bboxes=features[0].new_zeros(PROPOSALS, 4))]


def _regions(extractor: nn.Module, features: tuple[Tensor, ...], rois: Tensor, *args) -> Tensor:
    """Stands for RoIAlign, which multiplies nothing and has no meta version."""
    size = extractor.roi_layers[0].output_size
    return features[0].new_zeros(len(rois), extractor.out_channels, *size)
