"""Average precision of object masks or boxes, COCO's (arXiv 1405.0312; cocodataset.org/#detection-eval).

Deviations:
- The size of a true object, which decides whether it is small, medium or large, is the number of its mask's pixels.
  COCO's own evaluation takes the `area` of the annotation file, which is that of the polygon before rasterising.
- The box of a true object is the one around its mask's pixels, not the annotation file's.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from mmengine.evaluator import BaseMetric

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.metric_report import MetricReport, fraction_cell
from mmseg_m2f.evaluation.object_overlaps import (
    DetectedObjects,
    TrueObjects,
    box_areas,
    box_ious,
    object_ious,
    read_all_objects,
)
from mmseg_m2f.evaluation.sample_fields import class_names
from mmseg_m2f.registry import METRICS

_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # T
_RECALLS = np.linspace(0.0, 1.0, 101)
_SIZES = {"": (0, 1e10), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, 1e10)}  # pixels, inclusive
_OF_SIZES = tuple(size for size in _SIZES if size)


class ObjectCounts(NamedTuple):
    """What one image adds: its detections (D), judged at each threshold (T) for each range of sizes (A).

    Attributes:
        labels: class of each detection.
        scores: in descending order within each class.
        ranks: position among the image's detections of the same class, from 0.
        hits: whether the detection found an object of that range.
        wrong: whether it should not be there; neither where it lies on a crowd or is out of the range.
        true_labels: class of each true object that is no crowd.
        in_range: which ranges each of them belongs to.
    """

    labels: Int[np.ndarray, "D"]
    scores: Float[np.ndarray, "D"]
    ranks: Int[np.ndarray, "D"]
    hits: Bool[np.ndarray, "D A T"]
    wrong: Bool[np.ndarray, "D A T"]
    true_labels: Int[np.ndarray, "G"]
    in_range: Bool[np.ndarray, "G A"]


@METRICS.register_module()
class MaskAP(BaseMetric):
    """COCO's average precision (AP) and average recall (AR) of object masks or boxes, all fractions in [0, 1].

    `AP` averages over the IoU thresholds 0.50, 0.55 … 0.95 and over the classes with a true object; `AP50` and `AP75`
    take one threshold, `AP_small`, `AP_medium` and `AP_large` objects up to 32², up to 96² and from 96² pixels.
    `AR` is the recall averaged over thresholds and classes, `AR_1` and `AR_10` with one and ten detections for each
    class and image. `AP.<class>` is that of one class. What no true object contributes to is absent. The table of
    all classes goes to the log.

    The figures equal those of pycocotools on the masks of the samples; no annotation file is read. Each image leaves
    one entry in `results`, because a distributed run drops the samples it saw twice by counting entries. An entry
    holds judged detections without masks: about a hundred bytes for each, whatever the image's size.

    Args:
        boundary: Let the smaller of mask IoU and Boundary IoU decide (Boundary AP, arXiv 2103.16562); all names then
            begin with `boundary_`.
        boxes: Judge the predicted boxes (`pred_instances.bboxes`) by box IoU instead of masks (box AP); all names then
            begin with `box_`.
        max_per_image: How many detections of each class count in an image, the surest ones.
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset
    figures: ClassVar[Sequence[str]] = (
        *("AP", "AP50", "AP75", *(f"AP{size}" for size in _OF_SIZES)),
        *("AR", "AR_1", "AR_10", *(f"AR{size}" for size in _OF_SIZES)),
    )
    class_figure: ClassVar[str] = "AP"

    def __init__(
        self,
        *,
        boundary: bool = False,
        boxes: bool = False,
        max_per_image: int = 100,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if max_per_image < 1:
            raise InvalidValueError(
                f"MaskAP.max_per_image: expected at least 1, got {max_per_image}. COCO's value is 100."
            )
        if boundary and boxes:
            raise InvalidValueError("MaskAP: expected boundary or boxes, got both. List the metric twice.")
        self.boundary, self.boxes = boundary, boxes
        self.max_per_image = max_per_image

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample, in mmdet's layout; see `read_all_objects`, also for errors."""
        for detected, true in read_all_objects(self, data_samples):
            if self.boxes and detected.boxes is None:
                raise InvalidValueError(
                    "MaskAP.boxes: expected bboxes in pred_instances, got none. Evaluate a MaskDetector with "
                    "test_cfg.instance=True."
                )
            regions = dict(boundary=self.boundary, boxes=self.boxes)
            self.results.append(judge_detections(detected, true, **regions, max_per_class=self.max_per_image))

    def compute_metrics(self, results: Sequence[tuple[np.ndarray, ...]]) -> dict[str, float]:
        """Puts the entries together (mmengine turned them into plain tuples), writes the table, gives the figures.

        Raises:
            ValueError: Not a single object in the truth.
        """
        classes = class_names(self)
        if not any(len(ObjectCounts(*entry).true_labels) for entry in results):
            raise InvalidValueError(
                f"MaskAP: expected objects in the truth, got {len(results)} images without any. Check the annotation "
                "files, the dataset's classes, and that the test pipeline loads masks."
            )
        found = ObjectCounts(*(np.concatenate(column) for column in zip(*results, strict=True)))
        figures = [class_figures(found, label, max_per_image=self.max_per_image) for label in range(len(classes))]
        overall = {
            name: float(np.mean([row[name] for row in figures if name in row]))
            for name in self.figures
            if any(name in row for row in figures)
        }
        return MetricReport(
            title=f"{'Boundary' if self.boundary else 'Box' if self.boxes else 'Mask'} AP",
            overall=overall,
            class_figure=self.class_figure,
            by_class={label: row["AP"] for label, row in enumerate(figures) if row},
            columns={name: [fraction_cell(row.get(name)) for row in figures] for name in ("AP", "AP50", "AP75", "AR")}
            | dict(
                objects=[str((found.true_labels == label).sum()) for label in range(len(classes))],
                detections=[str((found.labels == label).sum()) for label in range(len(classes))],
            ),
            prefix="boundary_" if self.boundary else "box_" if self.boxes else "",
        ).publish(classes, len(results))


def class_figures(found: ObjectCounts, label: int, *, max_per_image: int = 100) -> dict[str, float]:
    """Figures of one class by name; those without a true object are absent.

    Args:
        found: of all images.
        max_per_image: how many detections of each class counted in an image.
    """
    own = np.flatnonzero(found.labels == label)
    own = own[np.argsort(-found.scores[own], kind="stable")]  # the surest first, ties in the order of the images
    in_range = found.in_range[found.true_labels == label]
    figures = {}
    for index, (size, num_true) in enumerate(zip(_SIZES, in_range.sum(0), strict=True)):
        if num_true:
            precision = interpolated_precision(found.hits[own, index], found.wrong[own, index], int(num_true))
            figures["AP" + size] = precision.mean()
            figures["AR" + size] = found.hits[own, index].sum(0).mean() / num_true
            if not size:
                figures["AP50"], figures["AP75"] = precision[0], precision[5]
    for most in (1, 10):
        if len(in_range) and most < max_per_image:
            first = own[found.ranks[own] < most]
            figures[f"AR_{most}"] = found.hits[first, 0].sum(0).mean() / len(in_range)
    return figures


def judge_detections(
    detected: DetectedObjects,
    true: TrueObjects,
    *,
    boundary: bool = False,
    boxes: bool = False,
    max_per_class: int = 100,
) -> ObjectCounts:
    """Matches the objects of an image class by class, as COCO does: by masks, or by boxes."""
    if boxes and detected.boxes is not None:
        ious, area = box_ious(detected.boxes, detected, true), box_areas(detected.boxes)
    else:
        ious, area = object_ious(detected, true, boundary=boundary), detected.masks.areas()
    lowest, highest = np.transpose([*_SIZES.values()])
    true_area = true.masks.areas()
    outside, true_outside = ((a[:, None] < lowest) | (a[:, None] > highest) for a in (area, true_area))
    ignored = true_outside | true.is_crowd[:, None]

    kept, ranks, hits, wrong = [], [], [], []
    for label in np.unique(detected.labels):
        rows = np.flatnonzero(detected.labels == label)
        rows = rows[np.argsort(-detected.scores[rows], kind="stable")][:max_per_class]
        columns = np.flatnonzero(true.labels == label)
        partners = match_greedily(ious[np.ix_(rows, columns)], true.is_crowd[columns], ignored[columns])
        matched = partners >= 0
        # An unmatched detection reads the last, made up column and is judged by its own size.
        partner_ignored = np.pad(ignored[columns], ((0, 1), (0, 0)))[partners, np.arange(len(_SIZES))[:, None]]
        excused = np.where(matched, partner_ignored, outside[rows, :, None])
        kept.append(rows)
        ranks.append(np.arange(len(rows)))
        hits.append(matched & ~excused)
        wrong.append(~matched & ~excused)
    order = np.concatenate([np.zeros(0, np.int64), *kept])
    nothing = np.zeros((0, len(_SIZES), len(_THRESHOLDS)), bool)
    return ObjectCounts(
        labels=detected.labels[order],
        scores=detected.scores[order],
        ranks=np.concatenate([np.zeros(0, np.int64), *ranks]),
        hits=np.concatenate([nothing, *hits]),
        wrong=np.concatenate([nothing, *wrong]),
        true_labels=true.labels[~true.is_crowd],
        in_range=~true_outside[~true.is_crowd],
    )


def match_greedily(
    ious: Float[np.ndarray, "D G"], is_crowd: Bool[np.ndarray, "G"], ignored: Bool[np.ndarray, "G A"]
) -> Int[np.ndarray, "D A T"]:
    """The true object that each detection takes, -1 for none, at each threshold for each range of sizes.

    In the order of scores, each detection takes the free object that it overlaps most, among those that are not ignored
    or else among the others; the last of equals. A crowd stays free.

    Args:
        ious: of one class, the detection with the highest score first.
    """
    num_detected, num_true = ious.shape
    free = np.ones((ignored.shape[1], len(_THRESHOLDS), num_true), dtype=bool)
    partners = np.full((num_detected, *free.shape[:2]), -1)
    if not num_true:
        return partners
    for row, iou in enumerate(ious):
        fits = free & (iou >= _THRESHOLDS[:, None])
        counted = fits & ~ignored.T[:, None]
        fits = np.where(counted.any(-1, keepdims=True), counted, fits)
        best = num_true - 1 - np.where(fits, iou, -1.0)[..., ::-1].argmax(-1)
        found = fits.any(-1)
        partners[row] = np.where(found, best, -1)
        sizes, thresholds = np.nonzero(found)
        free[sizes, thresholds, best[found]] = is_crowd[best[found]]
    return partners


def interpolated_precision(
    hits: Bool[np.ndarray, "D T"], wrong: Bool[np.ndarray, "D T"], num_true: int
) -> Float[np.ndarray, "T"]:
    """The best precision at or above each of 101 recalls, averaged; the detection with the highest score first."""
    hit_sums, wrong_sums = hits.cumsum(0), wrong.cumsum(0)
    precision = hit_sums / np.maximum(hit_sums + wrong_sums, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    best = np.pad(best, ((0, 1), (0, 0)))  # recalls that are never reached
    reached = [np.searchsorted(column, _RECALLS) for column in (hit_sums / num_true).T]
    return np.take_along_axis(best, np.transpose(reached), 0).mean(0)
