"""Whole detectors as ONNX, in standard operators, compared detection by detection."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torchvision.ops import box_iou

from bnet_mm.deploy.fusing import fuse
from bnet_mm.deploy.onnx import Export, check_packages, onnx_file, write_file
from bnet_mm.deploy.operators import check_operators, check_opset
from bnet_mm.deploy.quantized import Photos, quantize
from bnet_mm.deploy.rewriters import OPSET, rewritten
from bnet_mm.deploy.runtimes import graph_to_compare
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.openmmlab.models import build_model, load_model
from bnet_mm.openmmlab.pictures import preprocessed, read_image, resized
from bnet_mm.openmmlab.running import input_channels, input_shape, sized_errors

# Detections that count: what is less likely differs by the rounding of a runtime.
SCORE = 0.3
MOST = 100  # of these are compared
PIXELS, SCORES = 0.1, 1e-3
ALIKE = 0.99  # pixels of a mask
ANOTHER = 1.0  # pixels between two boxes of one thing
OVERLAP = 0.5  # intersection over union of two boxes of one thing
STRAYS = 0.1  # of what is found in random values, or ends another way in a tie


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


def export_detector(
    cfg: Config,
    checkpoint: str | None,
    out: str | Path,
    shape: tuple[int, int] | None = None,
    image: str | Path | None = None,
    runtime: str = 'onnxruntime',
    int8: str | Path | None = None,
    opset: int | None = None,
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
        runtime: one of `RUNTIMES`, in which the file is compared.
        int8: a folder of photos; weights and maps are in 8 bits then, with ranges as on these, up
            to the last layers of the heads and the postprocessing.
        opset: of ONNX's operators, 16 by default, which is the least.

    Raises:
        InputError: something of this cannot be used, mmdeploy does not know the model, or
            the runtime finds other things than torch.
    """
    out = onnx_file(out)
    check_packages(dynamo=False)
    check_opset(opset, OPSET)
    if checkpoint is None:
        model = revert_sync_batchnorm(build_model(cfg))
    else:
        model, _ = load_model(cfg, checkpoint)
    if not hasattr(model, 'add_pred_to_datasample'):
        raise InputError(
            f'{type(model).__name__} is no detector of MMDetection: leave --part detector out'
        )
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
        with rewritten(folded.model, folded.outputs) as patched:
            _export(Detections(patched, size).eval(), compared_on, file, opset or OPSET)
        check_operators(file)
        graph = graph_to_compare(file, runtime)
        if graph is None:
            return
        agreements.append(agreement(expected, tuple(graph(compared_on))))
        found = agreements[0]
        if found.lacking > most * found.compared or found.tied > STRAYS * found.compared:
            if image is None:
                advice = '. Give a photo of what it was trained on (--image)'
            elif not (expected[1] > SCORE).any():
                advice = (
                    f'. It is sure of nothing in this photo (no score above {SCORE}), and the last '
                    f'bit decides which unlikely ones it keeps: give another, or train it further'
                )
            else:
                advice = ''
            raise InputError(
                f'{runtime} finds other things than torch: {found.lacking + found.tied} of '
                f'{found.compared} detections have no counterpart; nothing was written{advice}'
            )

    photos = None if int8 is None else Photos(int8, model, channels, size)
    cost = write_file(
        out,
        write_and_compare,
        photos and (lambda file, small: quantize(file, small, photos, same_finds, runtime)),
    )
    worst = max((found.score for found in agreements), default=None)
    compared = sum(found.compared - found.tied for found in agreements)
    return Export(out, trained.outputs, worst, compared, cost)


def _export(detections: Detections, image: Tensor, file: Path, opset: int) -> None:
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
                opset_version=opset,
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
        lacking: how many of them the other has not, and has none in their place.
        tied: how many the other has not but another one in their place: of two that overlap the
            less likely is suppressed, and where both are equally likely the last bit decides.
        score: the largest difference of the scores of two that are the same.
    """

    compared: int
    lacking: int
    tied: int
    score: float


def agreement(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Agreement:
    """Compares detections `(boxes, scores, labels, ...)`.

    Two are the same with one label, scores within 1e-3, boxes within 0.1 pixel and masks alike in
    99 of 100 pixels. Those of a score above 0.3 count, or the ten best where there are none.
    """
    both = [_looked_for(ours, theirs), _looked_for(theirs, ours)]
    lost = [missing for _, missing, _ in both]
    tied = _replaced(ours, lost[0], theirs, lost[1]) + _replaced(theirs, lost[1], ours, lost[0])
    compared = sum(count for count, _, _ in both)
    return Agreement(
        compared, len(lost[0]) + len(lost[1]) - tied, tied, max(worst for _, _, worst in both)
    )


def _looked_for(these: Sequence[Tensor], those: Sequence[Tensor]) -> tuple[int, list[int], float]:
    """Returns how many were looked for, which are not there, and how far scores are apart."""
    boxes, scores, labels = (part.double() for part in these[:3])
    others, their_scores, their_labels = (part.double() for part in those[:3])
    sure = int((scores > SCORE).sum())
    best = scores.argsort(descending=True)[: min(sure, MOST) or 10]
    missing, worst = [], 0.0
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
            missing.append(int(index))
    return len(best), missing, worst


def _replaced(
    these: Sequence[Tensor], lost: list[int], those: Sequence[Tensor], found: list[int]
) -> int:
    """Returns how many of those lost overlap one that was found instead and is as likely."""
    boxes, scores, labels = (part[lost] for part in these[:3])
    others, their_scores, their_labels = (part[found] for part in those[:3])
    instead = (box_iou(boxes, others) > OVERLAP) & (labels[:, None] == their_labels)
    # One that has moved by less is no other box: its coordinates are wrong.
    instead &= (boxes[:, None] - others).abs().amax(2) > ANOTHER
    return int((instead & (their_scores >= scores[:, None] - SCORES)).any(1).sum())


def same_finds(before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[float | None, float]:
    """Judges detections in 8 bits: those of both above a score of 0.3 are looked for in the other.

    One is found again where the other has one of its label that covers it to more than half
    (intersection over union), of any score above half of its own.

    Returns:
        the share that is found again, None where neither has any; and the mean difference of the
        scores of those, relative to their mean.
    """
    found, scores, errors = 0, [], []
    for these, those in ((before, after), (after, before)):
        sure = these[1] > SCORE
        overlap = box_iou(these[0][sure], those[0]) * (these[2][sure, None] == those[2])
        overlap = overlap * (those[1] > these[1][sure, None] / 2)
        scores += these[1][sure].tolist()
        for score, row in zip(these[1][sure], overlap):
            if len(row) and row.max() > OVERLAP:
                found += 1
                errors.append((those[1][row.argmax()] - score).abs().item())
    if not scores:
        return None, 0.0
    return found / len(scores), sum(errors) / max(len(errors), 1) / (sum(scores) / len(scores))
