"""Counting of matched objects, as in microscopy ("Cell Detection with Star-convex Polygons", arXiv 1806.03535).

Deviations:
- Objects match within their class. Crowds (`ignored_instances`), which microscopy does not have, excuse detections of
  their class that have no partner and lie in one of them by more than half.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from mmengine.evaluator import BaseMetric
from scipy.optimize import linear_sum_assignment

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.metric_report import MetricReport, fraction_cell
from mmseg_m2f.evaluation.object_overlaps import DetectedObjects, TrueObjects, object_ious, read_all_objects
from mmseg_m2f.evaluation.sample_fields import class_names
from mmseg_m2f.registry import METRICS

_PERCENT = tuple(range(50, 95, 5))  # the IoU thresholds (T)


class MatchCounts(NamedTuple):
    """What one image adds to the classes that occur in it (C), at each IoU threshold (T).

    `classes` is ascending, each once. `matched` counts pairs (TP), `wrong` detections without a partner (FP),
    `missed` true objects without one (FN). `iou` is the summed IoU of the pairs at the lowest threshold. `places`
    counts matched and missed objects at that threshold near the border of the image, and in its middle.
    """

    classes: Int[np.ndarray, "C"]
    matched: Int[np.ndarray, "C T"]
    wrong: Int[np.ndarray, "C T"]
    missed: Int[np.ndarray, "C T"]
    iou: Float[np.ndarray, "C"]
    places: Int[np.ndarray, "2 2"]


@METRICS.register_module()
class ObjectMatching(BaseMetric):
    """TP / (TP + FP + FN) of objects at fixed IoU thresholds, all fractions in [0, 1].

    This is what microscopy calls average precision (StarDist, the 2018 Data Science Bowl); it is no area under a curve
    and needs a decision which detections count. `matching_AP50`, `matching_AP55` … `matching_AP90` take the counts at
    IoU 0.50, 0.55 … 0.90; `matching_precision`, `matching_recall`, `matching_F1` and `matching_IoU`, the mean IoU of
    matched pairs, those at 0.50. `matching_AP50.<class>` is that of one class, absent where the class occurs nowhere.
    A ratio without a matched pair is 0. The table of all classes goes to the log.

    `matching_recall_middle` and `matching_recall_border` are the recall at 0.50 of the true objects whose box has its
    centre in the middle of the image (from every border further away than a quarter of the shorter side), and of the
    others; absent where there are none. A model that is shown images larger than its training crops loses the middle.

    TP, FP and FN are pooled over all images and classes before dividing: an image or class with many objects weighs
    more than one with few. At each threshold, detections and true objects are matched one to one such that as many
    pairs as possible reach the threshold, and of those choices such that their IoUs sum to the most.

    Each image leaves one entry in `results`, because a distributed run drops the samples it saw twice by counting
    entries. An entry lists only the classes that occur in the image, whatever the image's size.

    Args:
        score_threshold: Detections with a higher score count.
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset
    figures: ClassVar[Sequence[str]] = (
        *(f"matching_AP{percent}" for percent in _PERCENT),
        *(f"matching_{name}" for name in ("precision", "recall", "F1", "IoU", "recall_middle", "recall_border")),
    )
    class_figure: ClassVar[str] = "matching_AP50"

    def __init__(self, *, score_threshold: float = 0.5, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.score_threshold = score_threshold

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample, in mmdet's layout; see `read_all_objects`, also for errors."""
        for detected, true in read_all_objects(self, data_samples):
            confident = np.flatnonzero(detected.scores > self.score_threshold)
            kept = DetectedObjects(
                detected.labels[confident], detected.scores[confident], detected.masks.select(confident)
            )
            self.results.append(count_matches(kept, true))

    def compute_metrics(self, results: Sequence[tuple[np.ndarray, ...]]) -> dict[str, float]:
        """Sums the entries up (mmengine turned them into plain tuples), writes the table, gives the figures.

        Raises:
            ValueError: Not a single object in the truth.
        """
        classes = class_names(self)
        counts = np.zeros((3, len(classes), len(_PERCENT)), dtype=np.int64)  # matched, wrong, missed
        iou_sum, places = 0.0, np.zeros((2, 2), dtype=np.int64)
        for present, *image_counts, ious, image_places in results:
            counts[:, present] += np.stack(image_counts)
            iou_sum += float(ious.sum())
            places += image_places
        if not counts[[0, 2]].any():
            raise InvalidValueError(
                f"ObjectMatching: expected objects in the truth, got {len(results)} images without any. Check the "
                "annotation files, the dataset's classes, and that the test pipeline loads masks."
            )
        pooled = counts.sum(1)
        matched, wrong, missed = pooled[:, 0].tolist()
        accuracies = zip(_PERCENT, _accuracy(pooled).tolist(), strict=True)
        metrics = {f"AP{percent}": accuracy for percent, accuracy in accuracies} | dict(
            precision=matched / max(matched + wrong, 1),
            recall=matched / (matched + missed),
            F1=2 * matched / (2 * matched + wrong + missed),
            IoU=iou_sum / max(matched, 1),
        )
        for name, (found, lost) in zip(("recall_border", "recall_middle"), places.tolist(), strict=True):
            if found + lost:
                metrics[name] = found / (found + lost)
        of_class = _accuracy(counts)
        occurs = counts[:, :, 0].any(0)
        shown = {"AP50": of_class[:, 0], "AP75": of_class[:, _PERCENT.index(75)]}
        return MetricReport(
            title=f"Matched objects, detections with a score above {self.score_threshold},",
            overall=metrics,
            class_figure="AP50",
            by_class={int(label): of_class[label, 0] for label in np.flatnonzero(occurs)},
            columns={name: [*map(fraction_cell, np.where(occurs, v, np.nan))] for name, v in shown.items()}
            | {
                name: [*map(str, numbers)]
                for name, numbers in zip(("matched", "wrong", "missed"), counts[:, :, 0], strict=True)
            },
            prefix="matching_",
        ).publish(classes, len(results))


def count_matches(detected: DetectedObjects, true: TrueObjects) -> MatchCounts:
    """Which detections of an image match which true objects, class by class."""
    ious = object_ious(detected, true)
    excused = np.nonzero(ious[:, true.is_crowd] > 0.5)[0]
    objects = ~true.is_crowd
    classes = np.union1d(detected.labels, true.labels[objects])
    counts = np.zeros((3, len(classes), len(_PERCENT)), dtype=np.int64)
    iou_sums = np.zeros(len(classes))
    in_middle, found = _lie_in_middle(true), np.zeros(len(true.labels), dtype=bool)
    for row, label in enumerate(classes):
        own = np.flatnonzero(detected.labels == label)
        wanted = np.flatnonzero(objects & (true.labels == label))
        of_class = ious[np.ix_(own, wanted)]
        for column, percent in enumerate(_PERCENT):
            pairs = match_best(of_class, percent / 100)
            num_pairs = len(pairs[0])
            unpaired = np.setdiff1d(np.delete(own, pairs[0]), excused)
            counts[:, row, column] = num_pairs, len(unpaired), len(wanted) - num_pairs
            if column == 0:
                iou_sums[row] = of_class[pairs].sum()
                found[wanted[pairs[1]]] = True
    matched, wrong, missed = counts
    of_place = [objects & ~in_middle, objects & in_middle]
    places = np.array([[np.count_nonzero(place & found), np.count_nonzero(place & ~found)] for place in of_place])
    return MatchCounts(classes, matched, wrong, missed, iou_sums, places)


def _lie_in_middle(true: TrueObjects) -> Bool[np.ndarray, "G"]:
    """Whether the centre of a box is further away from every border than a quarter of the shorter side."""
    centres = (true.masks.boxes[:, :2] + true.masks.boxes[:, 2:]) / 2
    to_border = np.minimum(centres, true.masks.size - centres).min(1)
    return to_border > min(true.masks.size) / 4


def match_best(ious: Float[np.ndarray, "N G"], threshold: float) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "P"]]:
    """Rows and columns of as many pairs as possible with at least this IoU, and of those the best sum of IoUs."""
    enough = ious >= threshold
    gain = np.where(enough, 1 + ious / (min(ious.shape) + 1), 0.0)  # all IoUs together count less than one pair
    rows, columns = linear_sum_assignment(gain, maximize=True)
    taken = enough[rows, columns]
    return rows[taken], columns[taken]


def _accuracy(counts: Int[np.ndarray, "3 ... T"]) -> Float[np.ndarray, "... T"]:
    """TP / (TP + FP + FN); 0 where there is nothing."""
    return counts[0] / np.maximum(counts.sum(0), 1)
