"""Whole detectors for ONNX, in standard operators, by the rewriters of mmdeploy.

mmdeploy knows for each head of MMDetection how to say its postprocessing in operators that ONNX has
(`NonMaxSuppression`, `RoiAlign`, `TopK`). Its last release is older than torch 2.2, and three
things in it stop there; they are mended for as long as an export lasts.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from bnet_mm.deploy.fusing import fuse
from bnet_mm.deploy.onnx import (
    Export,
    check_operators,
    check_packages,
    onnx_file,
    run_onnx,
    write_file,
)
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.openmmlab.models import build_model, load_model
from bnet_mm.openmmlab.pictures import preprocessed, read_image, resized
from bnet_mm.openmmlab.running import input_channels, input_shape, sized_errors

OPSET = 16  # the first in which RoiAlign counts pixels as mmcv's does
BACKEND = 'onnxruntime'
PROPOSALS = 'mmdet.models.dense_heads.rpn_head.RPNHead.predict_by_feat'
# Detections that count: what is less likely differs by the rounding of a runtime.
SCORE = 0.3
MOST = 100  # of these are compared
PIXELS, SCORES = 0.1, 1e-3
ALIKE = 0.99  # pixels of a mask
STRAYS = 0.1  # of what is found in random values
REGISTERED = ('codebase.mmdet.deploy', 'codebase.mmdet.models', 'codebase.mmdet.structures',
              'mmcv', 'pytorch')  # fmt: skip


class Detections(nn.Module):
    """A detector that takes an image and gives what it has found in it.

    Args:
        model: of MMDetection, in evaluation mode, of torch's own modules.
        size: height and width of the image.

    Shape:
        input `(1, C, H, W)`, preprocessed; boxes `(n, 4)` in its pixels, scores `(n,)`, labels
        `(n,)`, and masks `(n, H, W)` of a model that segments instances.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.model, self.size = model, size
        self.with_masks = bool(getattr(model, 'with_mask', False))

    @property
    def outputs(self) -> list[str]:
        """Names of what is given."""
        return ['boxes', 'scores', 'labels', *(['masks'] if self.with_masks else [])]

    def sample(self) -> Any:
        """Returns what the library keeps beside an image."""
        from mmdet.structures import DetDataSample

        sizes = dict.fromkeys(
            ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), self.size
        )
        return DetDataSample(metainfo=dict(sizes, scale_factor=(1.0, 1.0), img_id=0, img_path=''))

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        found = self.model(input, data_samples=[self.sample()], mode='predict')
        if isinstance(found[0], Tensor):  # rewritten, with a batch and boxes of no size as filling
            boxes, labels, *masks = (part[0] for part in found)
            kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            kept = kept.nonzero().squeeze(1)
            boxes = boxes.index_select(0, kept)
            labels = labels.index_select(0, kept)
            masks = [mask.index_select(0, kept) for mask in masks]
            return boxes[:, :4], boxes[:, 4], labels, *masks
        found = found[0].pred_instances
        masks = [found.masks] if self.with_masks else []
        return found.bboxes, found.scores, found.labels, *masks


def is_available() -> bool:
    """Tells whether whole detectors can be exported here."""
    try:
        _mmdeploy()
    except InputError:
        return False
    return True


def _mmdeploy() -> tuple[Any, Any]:
    try:
        core, utils = import_module('mmdeploy.core'), import_module('mmdeploy.utils')
        for name in REGISTERED:
            import_module(f'mmdeploy.{name}')
    except Exception as error:  # it reaches into what torch keeps for itself
        raise InputError(
            f'whole detectors are exported by mmdeploy, which cannot be imported ({error}): '
            f'pip install --no-deps mmdeploy==1.3.1 aenum'
        ) from error
    return core, utils


@contextmanager
def rewritten(detections: Detections) -> Iterator[Detections]:
    """Gives a detector for the exporter, whose postprocessing is in operators of ONNX.

    Raises:
        InputError: mmdeploy is not installed, or does not work here.
    """
    core, utils = _mmdeploy()
    settings = _settings(detections)
    ir = utils.IR.ONNX
    model = core.patch_model(detections.model, cfg=settings, backend=BACKEND, ir=ir)
    context = core.RewriterContext(cfg=settings, ir=ir, backend=BACKEND, opset=OPSET)
    with _mended(), context:
        yield Detections(model, detections.size).eval()


def _settings(detections: Detections) -> Config:
    """Returns mmdeploy's config; where a model's own `test_cfg` says a number, that counts."""
    return Config(
        dict(
            ir_config=dict(
                type='onnx',
                opset_version=OPSET,
                input_names=['input'],
                output_names=detections.outputs,
                input_shape=None,
                dynamic_axes=None,
            ),
            codebase_config=dict(
                type='mmdet',
                task='ObjectDetection',
                model_type='end2end',
                post_processing=dict(
                    score_threshold=0.05,
                    confidence_threshold=0.005,
                    iou_threshold=0.5,
                    max_output_boxes_per_class=1000,
                    pre_top_k=5000,
                    keep_top_k=100,
                    background_label_id=-1,
                    export_postprocess_mask=True,
                ),
            ),
            backend_config=dict(type=BACKEND),
        )
    )


@contextmanager
def _mended() -> Iterator[None]:
    """Lets mmdeploy 1.3.1 work with torch after 2.1 while it lasts."""
    marker = import_module('mmdeploy.core.optimizers.function_marker')
    symbols = import_module('torch.onnx.symbolic_opset9')
    apply = marker.Mark.__dict__.get('apply')
    # Marks are for splitting a graph in two; newer exporters do not take them.
    marker.Mark.apply = staticmethod(lambda tensor, *args: tensor)
    # ONNX has this one since its 16th set.
    records = import_module('mmdeploy.core').SYMBOLIC_REWRITER._registry._rewrite_records
    sampling = records.pop('grid_sampler', None)
    lacking = not hasattr(symbols, '_cast_Long')
    functions = import_module('mmdeploy.core').FUNCTION_REWRITER
    functions.register_rewriter(func_name=PROPOSALS, backend=BACKEND)(proposals)
    if lacking:
        symbols._cast_Long = _cast_long
    try:
        yield
    finally:
        if apply is None:
            del marker.Mark.apply
        else:
            marker.Mark.apply = apply
        functions._registry.remove_record(proposals)
        if sampling is not None:
            records['grid_sampler'] = sampling
        if lacking:
            del symbols._cast_Long


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
    cfg = self.test_cfg if cfg is None else cfg
    sizes = [score.shape[-2:] for score in cls_scores]
    priors = self.prior_generator.grid_priors(sizes, device=cls_scores[0].device)
    boxes, scores = [], []
    for cls_score, bbox_pred, prior in zip(cls_scores, bbox_preds, priors):
        score = cls_score[0].permute(1, 2, 0).reshape(-1, self.cls_out_channels)
        score = score.sigmoid() if self.use_sigmoid_cls else score.softmax(-1)
        score = score[:, 0]
        delta = bbox_pred[0].permute(1, 2, 0).reshape(-1, self.bbox_coder.encode_size)
        prior = prior.data
        if 0 < cfg.nms_pre < len(prior):
            score, best = score.topk(cfg.nms_pre)
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
        *(all_boxes[None], torch.stack(by_level)[None], all_boxes.shape[0]),
        *(torch.tensor([cfg.nms.iou_threshold]), torch.tensor([0.0])),
    )[:, 2]
    kept_scores, order = all_scores[kept].sort(descending=True)
    order = order[: cfg.max_per_img]
    found = torch.cat([all_boxes[kept][order], kept_scores[: cfg.max_per_img, None]], 1)
    return found[None], torch.zeros_like(found[:, 0], dtype=torch.long)[None]


def _cast_long(graph: Any, value: Any, non_blocking: object) -> Any:
    return graph.op('Cast', value, to_i=torch.onnx.TensorProtoDataType.INT64)


def export_detector(
    cfg: Config,
    checkpoint: str | None,
    out: str | Path,
    shape: tuple[int, int] | None = None,
    image: str | Path | None = None,
) -> Export:
    """Writes a whole detector as ONNX: an image in, boxes, scores, labels and masks out.

    Its norms are folded first. The graph has operators of ONNX alone, for images of one size and
    one at a time: what a detector finds has no fixed number, and its postprocessing is written for
    one image.

    Args:
        cfg: a whole config of MMDetection.
        checkpoint: its weights; None for the initial ones.
        out: the `.onnx` file.
        shape: height and width of the image, which the network must take; the library's usual one
            by default.
        image: a photo to compare on, where each detection must have its counterpart. By default it
            is random values, of which some detections change with the last bit of a score.

    Raises:
        InputError: something of this cannot be used, mmdeploy does not know the model, or
            onnxruntime finds other things than torch.
    """
    out = onnx_file(out)
    check_packages(dynamo=False)
    if checkpoint is None:
        model = revert_sync_batchnorm(build_model(cfg))
    else:
        model, _ = load_model(cfg, checkpoint)
    size = shape or input_shape(cfg)
    channels = input_channels(model)
    random = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))
    compared_on, most = random, STRAYS
    if image is not None:
        compared_on = preprocessed(resized(read_image(image, channels), size), model)
        most = 0.0
    trained = Detections(model, size).eval()
    with torch.no_grad(), sized_errors(model, random):
        expected = trained(compared_on)
    agreements = []

    def write_and_compare(file: Path) -> None:
        folded = Detections(fuse(model, shape=size, plain=True), size).eval()
        with rewritten(folded) as exported:
            _export(exported, compared_on, file)
        check_operators(file)
        theirs = run_onnx(file, compared_on)
        if theirs is None:
            return
        agreements.append(agreement(expected, tuple(theirs)))
        lacking, compared = agreements[0].lacking, agreements[0].compared
        if lacking > most * compared:
            raise InputError(
                f'onnxruntime finds other things than torch: {lacking} of {compared} detections '
                f'have no counterpart; nothing was written'
                + ('' if image else '. Give a photo of what it was trained on (--image)')
            )

    write_file(out, write_and_compare)
    worst = max((found.score for found in agreements), default=None)
    return Export(out, trained.outputs, worst, sum(found.compared for found in agreements))


def _export(detections: Detections, image: Tensor, file: Path) -> None:
    options: dict = dict(dynamo=False) if HAS_DYNAMO_ONNX else {}
    if 'autograd_inlining' in inspect.signature(torch.onnx.export).parameters:
        options['autograd_inlining'] = False  # mmdeploy's operators are functions of autograd
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')  # of what a trace takes for constant: the size is
            torch.onnx.export(
                *(detections, (image,), str(file)),
                input_names=['input'],
                output_names=detections.outputs,
                opset_version=OPSET,
                **options,
            )
    except Exception as error:  # of any kind: mmdeploy's, torch's, the model's
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:200]
        raise InputError(
            f'{type(detections.model).__name__} cannot be exported whole ({reason}): say --part '
            f'backbone'
        ) from error


@dataclass(frozen=True)
class Agreement:
    """How far two runs have found the same things.

    Attributes:
        compared: how many detections of both were looked for in the other.
        lacking: how many of them the other has not.
        score: the largest difference of the scores of two that are the same.
    """

    compared: int
    lacking: int
    score: float


def agreement(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> Agreement:
    """Compares detections `(boxes, scores, labels, ...)`.

    Two are the same with one label, scores within 1e-3, boxes within 0.1 pixel and masks alike in
    99 of 100 pixels. Those of a score
    above 0.3 count, or the ten best where there are none.
    """
    one, other = _found_in(ours, theirs), _found_in(theirs, ours)
    return Agreement(
        one.compared + other.compared, one.lacking + other.lacking, max(one.score, other.score)
    )


def _found_in(these: tuple[Tensor, ...], those: tuple[Tensor, ...]) -> Agreement:
    boxes, scores, labels = (part.double() for part in these[:3])
    others, their_scores, their_labels = (part.double() for part in those[:3])
    sure = int((scores > SCORE).sum())
    best = scores.argsort(descending=True)[: min(sure, MOST) or 10]
    lacking, worst = 0, 0.0
    for index in best:
        apart = (their_scores - scores[index]).abs()
        same = (their_labels == labels[index]) & (apart <= SCORES)
        if len(others):
            same &= (others - boxes[index]).abs().amax(1) <= PIXELS
            for mask, their_masks in zip(these[3:], those[3:]):
                alike = (their_masks.bool() == mask[index].bool()).flatten(1).float().mean(1)
                same &= alike >= ALIKE
        if same.any():
            worst = max(worst, apart[same].min().item())
        else:
            lacking += 1
    return Agreement(len(best), lacking, worst)
