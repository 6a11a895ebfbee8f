"""Postprocessing of heads for one image, in operators that ONNX has.

mmdeploy has such a function for each head of MMDetection; these stand where its own finds other
things than MMDetection does. They are called as the head's own `predict_by_feat`, with maps of a
batch of one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ALL = 1 << 20  # boxes, more than there are


def proposals(
    self: Any,
    cls_scores: list[Tensor],
    bbox_preds: list[Tensor],
    score_factors: object = None,
    batch_img_metas: Any = None,
    cfg: Any = None,
    rescale: bool = False,
    with_nms: bool = True,
    **kwargs: object,
) -> tuple[Tensor, Tensor]:
    """What `RPNHead.predict_by_feat` gives for one image, in operators that are exported.

    mmdeploy's own suppresses boxes across levels, and unlikely ones beforehand; MMDetection does
    neither, and the second stage then sees other boxes.

    Returns:
        boxes and scores `(1, n, 5)`, labels `(1, n)`.
    """
    nms = import_module('mmdeploy.mmcv.ops.nms').ONNXNMSop
    settings = import_module('mmdeploy.core').FUNCTION_REWRITER.get_context().cfg
    free_size = import_module('mmdeploy.utils').is_dynamic_shape(settings)
    cfg = self.test_cfg if cfg is None else cfg
    sizes = [score.shape[-2:] for score in cls_scores]
    priors = self.prior_generator.grid_priors(sizes, device=cls_scores[0].device)
    boxes, scores = [], []
    for cls_score, bbox_pred, prior in zip(cls_scores, bbox_preds, priors):
        score = cls_score[0].permute(1, 2, 0).reshape(-1, self.cls_out_channels)
        score = score.sigmoid() if self.use_sigmoid_cls else score.softmax(-1)
        score = score[:, 0]
        delta = bbox_pred[0].permute(1, 2, 0).reshape(-1, self.bbox_coder.encode_size)
        if not free_size:
            prior = prior.data
        if cfg.nms_pre > 0 and (free_size or cfg.nms_pre < len(prior)):
            score, best = score.topk(cfg.nms_pre)  # rewritten, too: of fewer all
            delta, prior = delta[best], prior[best]
        shape = batch_img_metas[0]['img_shape']
        box = self.bbox_coder.decode(prior[None], delta[None], max_shape=shape)[0]
        if cfg.get('min_bbox_size', -1) >= 0:
            size = box[:, 2:] - box[:, :2]
            score = score * (size > cfg.min_bbox_size).all(1)
        boxes.append(box)
        scores.append(score)
    # Each level is a class of its own, in which the boxes of the others have no score.
    by_level = [
        torch.cat([score if i == level else score * 0 for i, score in enumerate(scores)])
        for level in range(len(scores))
    ]
    all_boxes, all_scores = torch.cat(boxes), torch.cat(scores)
    kept = nms.apply(
        *(all_boxes[None], torch.stack(by_level)[None], ALL),
        *(torch.tensor([cfg.nms.iou_threshold]), torch.tensor([0.0])),
    )[:, 2]
    kept_scores, order = all_scores[kept].sort(descending=True)
    order = order[: cfg.max_per_img]
    found = torch.cat([all_boxes[kept][order], kept_scores[: cfg.max_per_img, None]], 1)
    return found[None], torch.zeros_like(found[:, 0], dtype=torch.long)[None]


def instances(
    self: Any,
    cls_scores: list[Tensor],
    bbox_preds: list[Tensor],
    kernel_preds: list[Tensor],
    mask_feat: Tensor,
    score_factors: object = None,
    batch_img_metas: Any = None,
    cfg: Any = None,
    rescale: bool = False,
    with_nms: bool = True,
    **kwargs: object,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `RTMDetInsHead.predict_by_feat` gives for one image, in operators that are exported.

    mmdeploy's own leaves boxes beyond the border of the image, gives probabilities for masks, and
    asks for a GPU.

    Returns:
        boxes and scores `(1, n, 5)`, labels `(1, n)`, masks `(1, n, H, W)`, bool.
    """
    nms = import_module('mmdeploy.mmcv.ops.nms').ONNXNMSop
    cfg = self.test_cfg if cfg is None else cfg
    device = mask_feat.device

    def of_levels(maps: list[Tensor], channels: int) -> Tensor:
        return torch.cat([part[0].permute(1, 2, 0).reshape(-1, channels) for part in maps])

    priors = torch.cat(
        self.prior_generator.grid_priors(
            [score.shape[-2:] for score in cls_scores], device=device, with_stride=True
        )
    )
    scores = of_levels(cls_scores, self.cls_out_channels).sigmoid()
    shape = batch_img_metas[0]['img_shape']
    boxes = self.bbox_coder.decode(
        priors[None, :, :2], of_levels(bbox_preds, 4)[None], max_shape=shape
    )
    kept = nms.apply(
        *(boxes, scores.t()[None], ALL),
        *(torch.tensor([cfg.nms.iou_threshold]), torch.tensor([cfg.score_thr])),
    )
    kept_scores, order = scores[kept[:, 2]].gather(1, kept[:, 1:2])[:, 0].sort(descending=True)
    labels, best = (kept[order[: cfg.max_per_img], part] for part in (1, 2))
    found = torch.cat([boxes[0, best], kept_scores[: cfg.max_per_img, None]], 1)
    kernels = of_levels(kernel_preds, self.num_gen_params)[best]
    logits = _masks(self, mask_feat, kernels, priors[best])
    stride = self.prior_generator.strides[0][0]
    masks = F.interpolate(logits, scale_factor=stride, mode='bilinear').sigmoid()
    return found[None], labels[None], masks > cfg.mask_thr_binary


def _masks(self: Any, mask_feat: Tensor, kernels: Tensor, priors: Tensor) -> Tensor:
    """Returns logits `(1, n, h, w)`: each instance has convolutions of 1 x 1 of its own."""
    height, width = mask_feat.shape[-2:]
    pixels = self.prior_generator.single_level_grid_priors(
        (height, width), level_idx=0, device=mask_feat.device
    )
    away = (priors[:, None, :2] - pixels.reshape(1, -1, 2)).permute(0, 2, 1)
    away = away / (priors[:, 2:3, None] * 8)  # in strides of the instance's level
    number = kernels.shape[0]  # of which a trace keeps track, unlike len()
    maps = mask_feat.flatten(2).expand(number, -1, -1)
    maps = torch.cat([away, maps], 1)
    parts = kernels.split_with_sizes(self.weight_nums + self.bias_nums, 1)
    layers = len(self.weight_nums)
    for i, (weight, bias) in enumerate(zip(parts[:layers], parts[layers:])):
        channels = 1 if i == layers - 1 else self.dyconv_channels
        maps = weight.reshape(number, channels, -1) @ maps + bias[:, :, None]
        if i < layers - 1:
            maps = maps.relu()
    return maps.reshape(1, -1, height, width)
