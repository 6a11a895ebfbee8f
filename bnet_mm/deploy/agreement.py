"""Whether two runs of a detector have found the same things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import box_iou

# Detections that count: what is less likely differs by the rounding of a runtime.
SCORE = 0.3
MOST = 100  # of these are compared
PIXELS, SCORES = 0.1, 1e-3
ALIKE = 0.99  # pixels of a mask
ANOTHER = 1.0  # pixels between two boxes of one thing
OVERLAP = 0.5  # intersection over union of two boxes of one thing
STRAYS = 0.1  # of what is found in random values, or ends another way in a tie


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
