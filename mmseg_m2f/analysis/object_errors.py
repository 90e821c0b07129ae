"""What costs AP, detection by detection ("TIDE", arXiv 2008.08115, section 2, with splits and merges besides).

Errors are found at an IoU of 0.5. Each wrong detection belongs to one kind, the first that fits:
- duplicate: an IoU of at least 0.5 with an object of its class that a surer detection has taken. Mended: it is gone.
- class: an IoU of at least 0.5 with an object of another class. Mended: it has the true class, or is gone where the
object
  is taken.
- merge: it holds most of two or more objects of its class. Mended: it is cut to each of those that are not taken.
- split: it lies mostly inside an object of its class that is not taken, as others do, and together they have an IoU of
at
  least 0.5 with it. Mended: the surest of them has the pixels of all, the others are gone.
- boundary: an IoU of at least 0.1 with an object of its class. Mended: it has the object's mask, or is gone where the
object
  is taken.
- void: any other. Mended: it is gone.
An object that nothing of that finds is missed. Mended: it is left out of the truth, because an object that is found
needs a score. The kinds are mended one at a time; AP averages over the IoUs 0.50 to 0.95 as always.

Deviations from TIDE: what overlaps an object of another class too little counts as void.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from mmseg_m2f.analysis.error_table import ERROR_KINDS, ErrorKind, ErrorRow, ErrorTable
from mmseg_m2f.analysis.judged_samples import EvaluatedData
from mmseg_m2f.core.cropped_masks import CroppedMasks, crop_masks
from mmseg_m2f.evaluation.mask_ap import ObjectCounts, class_figures, judge_detections, match_greedily
from mmseg_m2f.evaluation.object_overlaps import DetectedObjects, TrueObjects, read_objects

_LOWEST_IOU, _ENOUGH = 0.1, 0.5


class ObjectErrors:
    """Adds up the samples of a test set."""

    def __init__(self) -> None:
        self._judged: dict[str, list[ObjectCounts]] = {kind: [] for kind in ("", *ERROR_KINDS)}
        self._counts: dict[ErrorKind, int] = dict.fromkeys(ERROR_KINDS, 0)
        self._num_classes = 0

    def __call__(self, sample: Mapping, data: EvaluatedData) -> None:
        """Add one sample."""
        self._num_classes = len(data.classes)
        detected, true = read_objects(sample, self._num_classes, where=str(sample.get("img_path")))
        judged = judge_detections(detected, true)
        self._judged[""].append(judged)
        errors = detection_errors(detected, true)
        for kind in ERROR_KINDS:
            self._counts[kind] += len(errors[kind])
            mended = judge_detections(*mend(detected, true, errors[kind])) if errors[kind] else judged
            self._judged[kind].append(mended)

    def table(self) -> ErrorTable:
        """All samples so far."""
        rows = [ErrorRow(kind, self._counts[kind], self._mean_ap(kind)) for kind in ERROR_KINDS]
        return ErrorTable("AP", self._mean_ap(""), "objects", rows)

    def _mean_ap(self, kind: str) -> float:
        found = ObjectCounts(*(np.concatenate(column) for column in zip(*self._judged[kind], strict=True)))
        figures = (class_figures(found, label) for label in range(self._num_classes))
        return float(np.mean([each["AP"] for each in figures if "AP" in each] or [0.0]))


@dataclass
class Mending:
    """What mends one error.

    Attributes:
        removed: detections that are gone.
        added: detections in their place: class, score, mask.
        left_out: true objects that are left out.
    """

    removed: list[int] = field(default_factory=list)
    added: list[tuple[int, float, Bool[np.ndarray, "H W"]]] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)


def mend(
    detected: DetectedObjects, true: TrueObjects, mendings: Sequence[Mending]
) -> tuple[DetectedObjects, TrueObjects]:
    """Detections and truth after some errors were mended."""
    removed = [index for each in mendings for index in each.removed]
    added = [entry for each in mendings for entry in each.added]
    kept = np.setdiff1d(np.arange(len(detected.labels)), removed)
    objects = np.setdiff1d(np.arange(len(true.labels)), [index for each in mendings for index in each.left_out])
    new = crop_masks(np.stack([mask for *_, mask in added])) if added else detected.masks.select(np.zeros(0, np.int64))
    old = detected.masks.select(kept)
    masks = CroppedMasks(old.size, np.concatenate([old.boxes, new.boxes]), old.crops + new.crops)
    labels = np.concatenate([detected.labels[kept], np.array([label for label, *_ in added], dtype=np.int64)])
    scores = np.concatenate([detected.scores[kept], np.array([score for _, score, _ in added], dtype=np.float64)])
    return (
        DetectedObjects(labels, scores, masks),
        TrueObjects(true.labels[objects], true.is_crowd[objects], true.masks.select(objects)),
    )


def detection_errors(detected: DetectedObjects, true: TrueObjects) -> dict[ErrorKind, list[Mending]]:
    """The errors of one image by kind, and what mends each."""
    overlaps = _overlaps(detected, true)
    partners = _partners(detected, true, overlaps.iou)
    finder = _Finder(detected, true, overlaps, taken=np.isin(np.arange(len(true.labels)), partners))
    wrong = np.flatnonzero(partners < 0)
    for index in wrong[np.argsort(-detected.scores[wrong], kind="stable")].tolist():
        finder.judge(index)
    for index in np.flatnonzero(~finder.taken & ~finder.claimed & ~true.is_crowd).tolist():
        finder.errors["missed"].append(Mending(left_out=[index]))
    return finder.errors


@dataclass
class _Overlaps:
    iou: Float[np.ndarray, "N G"]  # of a crowd: the share of the detection in it
    common: Int[np.ndarray, "N G"]
    areas: Int[np.ndarray, "N"]
    true_areas: Int[np.ndarray, "G"]


class _Finder:
    def __init__(
        self, detected: DetectedObjects, true: TrueObjects, overlaps: _Overlaps, *, taken: Bool[np.ndarray, "G"]
    ) -> None:
        self.detected, self.true, self.overlaps, self.taken = detected, true, overlaps, taken
        self.claimed = np.zeros(len(taken), dtype=bool)  # by a wrong detection that finds the object once it is mended
        self.judged = np.zeros(len(detected.labels), dtype=bool)
        self.errors: dict[ErrorKind, list[Mending]] = {kind: [] for kind in ERROR_KINDS}

    def judge(self, index: int) -> None:
        """Find the kind of one wrong detection."""
        if self.judged[index]:
            return
        self.judged[index] = True
        iou = np.where(self.true.is_crowd, 0, self.overlaps.iou[index])
        own = self.true.labels == self.detected.labels[index]
        if (own & self.taken & (iou >= _ENOUGH)).any():
            self._add("duplicate", index, None)
        elif (~own & (iou >= _ENOUGH)).any():
            self._add("class", index, self._best(np.where(~own, iou, 0)), keep_mask=True)
        elif self._is_merge(index, own) or self._is_split(index, own):
            pass
        elif (own & (iou >= _LOWEST_IOU)).any():
            self._add("boundary", index, self._best(np.where(own, iou, 0)))
        else:
            self._add("void", index, None)

    def _best(self, iou: Float[np.ndarray, "G"]) -> int:
        """The object with the highest IoU, one that is free if there is any with enough of it."""
        free = np.where(self.taken | self.claimed, 0, iou)
        lowest = _ENOUGH if iou.max() >= _ENOUGH else _LOWEST_IOU
        return int(free.argmax() if free.max() >= lowest else iou.argmax())

    def _add(self, kind: ErrorKind, index: int, target: int | None, *, keep_mask: bool = False) -> None:
        mending = Mending(removed=[index])
        if target is not None and not (self.taken[target] or self.claimed[target]):
            mask = self._mask(self.detected.masks, index) if keep_mask else self._mask(self.true.masks, target)
            mending.added = [(int(self.true.labels[target]), float(self.detected.scores[index]), mask)]
            self.claimed[target] = True
        self.errors[kind].append(mending)

    def _is_merge(self, index: int, own: Bool[np.ndarray, "G"]) -> bool:
        common, areas = self.overlaps.common[index], self.overlaps.true_areas
        held = np.flatnonzero(own & ~self.true.is_crowd & (2 * common > areas))
        if len(held) < 2:
            return False
        mask, score = self._mask(self.detected.masks, index), float(self.detected.scores[index])
        free = [target for target in held.tolist() if not (self.taken[target] or self.claimed[target])]
        parts = [(int(self.true.labels[t]), score, mask & self._mask(self.true.masks, t)) for t in free]
        self.errors["merge"].append(Mending([index], parts))
        self.claimed[free] = True
        return True

    def _is_split(self, index: int, own: Bool[np.ndarray, "G"]) -> bool:
        inside = 2 * self.overlaps.common > self.overlaps.areas[:, None]
        free = own & ~self.true.is_crowd & ~self.taken & ~self.claimed & inside[index]
        if not free.any():
            return False
        target = int(free.argmax())
        same = (self.detected.labels == self.detected.labels[index]) & inside[:, target]
        parts = np.flatnonzero(same & (~self.judged | (np.arange(len(same)) == index)))
        if len(parts) < 2:
            return False
        union = np.logical_or.reduce([self._mask(self.detected.masks, part) for part in parts.tolist()])
        whole = self._mask(self.true.masks, target)
        if np.count_nonzero(union & whole) < _ENOUGH * np.count_nonzero(union | whole):
            return False
        score = float(self.detected.scores[index])  # the surest: detections are judged in this order
        self.errors["split"].append(Mending(parts.tolist(), [(int(self.true.labels[target]), score, union)]))
        self.judged[parts] = self.claimed[target] = True
        return True

    @staticmethod
    def _mask(masks: CroppedMasks, index: int) -> Bool[np.ndarray, "H W"]:
        top, left, bottom, right = masks.boxes[index]
        mask = np.zeros(masks.size, dtype=bool)
        mask[top:bottom, left:right] = masks.crops[index]
        return mask


def _overlaps(detected: DetectedObjects, true: TrueObjects) -> _Overlaps:
    every = np.ones((len(detected.labels), len(true.labels)), dtype=bool)
    common = detected.masks.shared_pixels(true.masks, every)
    areas, true_areas = detected.masks.areas(), true.masks.areas()
    union = areas[:, None] + np.where(true.is_crowd, 0, true_areas - common)
    iou = np.divide(common, union, out=np.zeros(common.shape), where=common > 0)
    return _Overlaps(iou, common, areas, true_areas)


def _partners(detected: DetectedObjects, true: TrueObjects, iou: Float[np.ndarray, "N G"]) -> Int[np.ndarray, "N"]:
    """The object that each detection has at an IoU of 0.5, -1 where it has none; crowds excuse any number."""
    partners = np.full(len(detected.labels), -1)
    for label in np.unique(detected.labels):
        rows = np.flatnonzero(detected.labels == label)
        rows = rows[np.argsort(-detected.scores[rows], kind="stable")]
        columns = np.flatnonzero(true.labels == label)
        is_crowd = true.is_crowd[columns]
        found = match_greedily(iou[np.ix_(rows, columns)], is_crowd, is_crowd[:, None])[:, 0, 0]
        partners[rows[found >= 0]] = columns[found[found >= 0]]
    return partners
