"""What costs PQ, segment by segment.

Each wrong segment belongs to one kind, the first that fits. Segments without a partner:
- class: a predicted and a true segment of different classes have an IoU above 0.5. Mended: the prediction has the true
  class.
- split: two or more predicted segments of one class lie mostly inside a true one of that class, and together have an
IoU
  above 0.5 with it. Mended: they are one.
- merge: a predicted segment holds most of two or more true ones of its class, and one of them has no partner. Mended:
it
  is cut to each of them.
- boundary: predicted and true segment of one class have an IoU from 0.1 to 0.5; also matched pairs with an IoU below 1.
  Mended: the prediction is exact.
- duplicate: most of a predicted segment lies in a true one of its class that has a partner. Mended: it is gone.
- void: any other predicted segment: the truth has no such segment there. Mended: it is gone.
- missed: any other true segment. Mended: it is predicted exactly.

Crowds and segments that do not count in PQ are no errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mmseg_m2f.analysis.error_table import ERROR_KINDS, ErrorKind, ErrorRow, ErrorTable
from mmseg_m2f.analysis.judged_samples import EvaluatedData
from mmseg_m2f.evaluation.panoptic_quality import SegmentPairs, class_qualities, pair_segments, read_true_segments

_LOWEST_IOU = 0.1


@dataclass
class Change:
    """What mending one error changes.

    Attributes:
        found: class and IoU of each true segment that has a partner then and had none.
        exact: class and gain in IoU of each pair that changes its IoU.
        removed: classes of predicted segments that no longer are without a partner.
    """

    found: list[tuple[int, float]] = field(default_factory=list)
    exact: list[tuple[int, float]] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)


class PanopticErrors:
    """Adds up the samples of a test set."""

    def __init__(self) -> None:
        self._base: Float[np.ndarray, "4 K"] | None = None
        self._changes: dict[ErrorKind, Float[np.ndarray, "4 K"]] = {}
        self._counts: dict[ErrorKind, int] = dict.fromkeys(ERROR_KINDS, 0)

    def __call__(self, sample: Mapping, data: EvaluatedData) -> None:
        """Add one sample."""
        where = str(sample.get("img_path"))
        num_classes = len(data.classes)
        if self._base is None:
            self._base = np.zeros((4, num_classes))
            self._changes = {kind: np.zeros((4, num_classes)) for kind in ERROR_KINDS}
        truth = read_true_segments(sample, torch.from_numpy(data.is_thing), where=where)
        prediction = sample["pred_panoptic_seg"]["sem_seg"].squeeze(0)
        pairs = pair_segments(prediction, truth, num_classes=num_classes, where=where)
        predicted, true = pairs.partners.nonzero()
        np.add.at(self._base[0], pairs.true_classes[true], pairs.iou[predicted, true])
        for row, labels in enumerate(
            (pairs.true_classes[true], pairs.classes[pairs.wrong], pairs.true_classes[pairs.missed]), start=1
        ):
            np.add.at(self._base[row], labels, 1)
        changes = segment_errors(pairs)
        for label in sample.get("absent_segments", ()):
            self._base[3, label] += 1
            changes["missed"].append(Change(found=[(int(label), 1.0)]))
        for kind, errors in changes.items():
            self._counts[kind] += len(errors)
            for change in errors:
                self._add(self._changes[kind], change)

    def table(self) -> ErrorTable:
        """All samples so far."""
        assert self._base is not None
        rows = [
            ErrorRow(kind, self._counts[kind], _mean_quality(self._base + self._changes[kind])) for kind in ERROR_KINDS
        ]
        return ErrorTable("PQ", _mean_quality(self._base), "segments", rows)

    @staticmethod
    def _add(change_of_counts: Float[np.ndarray, "4 K"], change: Change) -> None:
        for label, iou in change.found:
            change_of_counts[:, label] += (iou, 1, 0, -1)
        for label, gain in change.exact:
            change_of_counts[0, label] += gain
        for label in change.removed:
            change_of_counts[2, label] -= 1


def segment_errors(pairs: SegmentPairs) -> dict[ErrorKind, list[Change]]:
    """The errors of one image by kind, and what mending each changes."""
    state = _Open(pairs, pairs.wrong.copy(), pairs.missed.copy())
    steps: tuple[tuple[ErrorKind, Callable[[_Open], list[Change]]], ...] = (
        ("class", _confused),
        ("split", _split),
        ("merge", _merged),
        ("boundary", _inexact),
        ("duplicate", _duplicates),
        ("void", _invented),
        ("missed", _missed),
    )
    return {kind: step(state) for kind, step in steps}


@dataclass
class _Open:
    """Segments whose kind is not known yet."""

    pairs: SegmentPairs
    wrong: Bool[np.ndarray, "N"]
    missed: Bool[np.ndarray, "G"]

    @property
    def same_class(self) -> Bool[np.ndarray, "N G"]:
        return (self.pairs.classes[:, None] == self.pairs.true_classes) & ~self.pairs.is_crowd

    @property
    def lies_in(self) -> Bool[np.ndarray, "N G"]:
        """Whether most of a predicted segment lies in a true one."""
        return 2 * self.pairs.pixels.true > self.pairs.pixels.of_predicted()[:, None]

    @property
    def holds(self) -> Bool[np.ndarray, "N G"]:
        """Whether a predicted segment holds most of a true one."""
        return 2 * self.pairs.pixels.true > self.pairs.pixels.of_true()


def _confused(state: _Open) -> list[Change]:
    pairs, changes = state.pairs, []
    for predicted, true in zip(*(pairs.fits & state.wrong[:, None] & state.missed).nonzero(), strict=True):
        label = int(pairs.true_classes[true])
        changes.append(Change([(label, float(pairs.iou[predicted, true]))], removed=[int(pairs.classes[predicted])]))
        state.wrong[predicted] = state.missed[true] = False
    return changes


def _split(state: _Open) -> list[Change]:
    pairs, changes = state.pairs, []
    is_part = state.same_class & state.lies_in
    for true in state.missed.nonzero()[0]:
        parts = (is_part[:, true] & state.wrong).nonzero()[0]
        common = pairs.pixels.true[parts, true].sum()
        union = pairs.pixels.of_predicted()[parts].sum() + pairs.pixels.of_true()[true] - common
        if len(parts) >= 2 and 2 * common > union:
            label = int(pairs.true_classes[true])
            changes.append(Change([(label, common / union)], removed=[label] * len(parts)))
            state.wrong[parts] = state.missed[true] = False
    return changes


def _merged(state: _Open) -> list[Change]:
    pairs, changes = state.pairs, []
    holds = state.same_class & state.holds
    for predicted in range(len(pairs.classes)):
        held = holds[predicted].nonzero()[0]
        partner = pairs.partners[predicted].nonzero()[0]
        if len(held) < 2 or not (state.wrong[predicted] or len(partner)) or not state.missed[held].any():
            continue
        label = int(pairs.classes[predicted])
        cut = pairs.pixels.true[predicted] / np.maximum(pairs.pixels.of_true(), 1)
        change = Change(found=[(label, float(cut[true])) for true in held if state.missed[true]])
        change.exact = [(label, float(cut[true] - pairs.iou[predicted, true])) for true in partner if true in held]
        change.removed = [] if len(partner) else [label]
        changes.append(change)
        state.missed[held] = state.wrong[predicted] = False
    return changes


def _inexact(state: _Open) -> list[Change]:
    pairs, changes = state.pairs, []
    for predicted, true in zip(*pairs.partners.nonzero(), strict=True):
        if pairs.iou[predicted, true] < 1:
            label = int(pairs.true_classes[true])
            changes.append(Change(exact=[(label, 1 - float(pairs.iou[predicted, true]))]))
    near = np.where(state.same_class & state.wrong[:, None] & state.missed, pairs.iou, 0.0)
    while near.size and near.max() >= _LOWEST_IOU:
        predicted, true = np.unravel_index(near.argmax(), near.shape)
        label = int(pairs.true_classes[true])
        changes.append(Change([(label, 1.0)], removed=[label]))
        state.wrong[predicted] = state.missed[true] = False
        near[predicted], near[:, true] = 0.0, 0.0
    return changes


def _duplicates(state: _Open) -> list[Change]:
    has_partner = state.pairs.partners.any(0)
    again = state.wrong & (state.same_class & state.lies_in & has_partner).any(1)
    state.wrong &= ~again
    return [Change(removed=[label]) for label in state.pairs.classes[again].tolist()]


def _invented(state: _Open) -> list[Change]:
    return [Change(removed=[label]) for label in state.pairs.classes[state.wrong].tolist()]


def _missed(state: _Open) -> list[Change]:
    return [Change([(label, 1.0)]) for label in state.pairs.true_classes[state.missed].tolist()]


def _mean_quality(counts: Float[np.ndarray, "4 K"]) -> float:
    """PQ over the classes that occur; rows are summed IoU, matched, wrong, missed."""
    iou = counts[0]
    matched, wrong, missed = (_whole(row) for row in counts[1:])
    quality = class_qualities(iou, matched, wrong=wrong, missed=missed).pq
    return float(np.nanmean(quality))


def _whole(row: Float[np.ndarray, "K"]) -> Int[np.ndarray, "K"]:
    return row.round().astype(np.int64)
