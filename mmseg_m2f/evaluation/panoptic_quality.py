"""Panoptic quality ("Panoptic Segmentation", arXiv 1801.00868, section 4; crowds as in COCO's own evaluation).

Boundary PQ is that of arXiv 2103.16562, section 5, with void handled as in its official release: the boundary region
of a prediction is that of the whole segment, and its part on void leaves the union.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation.boundary import boundary_pixels, boundary_width
from mmseg_m2f.evaluation.metric_report import MetricReport, fraction_cell
from mmseg_m2f.evaluation.sample_fields import (
    check_sizes,
    class_names,
    describe_sample,
    has_parts,
    read_field,
    read_masks,
)
from mmseg_m2f.registry import METRICS
from mmseg_m2f.samples import read_segments_target
from mmseg_m2f.structures import BACKGROUND, VOID


class SegmentCounts(NamedTuple):
    """What one image adds to the classes that occur in it.

    `classes` is ascending, each once. `iou` is the summed IoU of the class's matched pairs, `matched` their number
    (TP), `wrong` that of predicted segments without a partner (FP), `missed` that of true ones (FN).
    """

    classes: NDArray[np.int64]
    iou: NDArray[np.float64]
    matched: NDArray[np.int64]
    wrong: NDArray[np.int64]
    missed: NDArray[np.int64]


class TrueSegments(NamedTuple):
    """Objects and stuff of an image, then its crowds; they do not overlap.

    `segment_map` holds indices into `labels`, or `BACKGROUND`, or `VOID`.
    """

    labels: Int[Tensor, "G"]
    is_crowd: Bool[Tensor, "G"]
    segment_map: Int[Tensor, "H W"]


class SharedPixels(NamedTuple):
    """How many pixels each predicted segment (N) shares with void, background and each true segment (G)."""

    void: NDArray[np.int64]
    """N"""
    background: NDArray[np.int64]
    """N"""
    true: NDArray[np.int64]
    """N G"""

    def of_predicted(self) -> NDArray[np.int64]:
        """N: all pixels of each predicted segment but those on void."""
        return self.background + self.true.sum(1)

    def of_true(self) -> NDArray[np.int64]:
        """G: all pixels of each true segment."""
        return self.true.sum(0)


class SegmentPairs(NamedTuple):
    """How the predicted segments of an image (N) and the true ones (G) match.

    Attributes:
        classes: of the predicted segments, K where nothing was recognised.
        true_classes, is_crowd: of the true segments.
        pixels: which pixels they share.
        iou: of all pairs, whatever their classes; the part of a prediction on void is not in the union.
        fits: whether that is above 0.5; at most once in a row and in a column.
        partners: the matched pairs.
        wrong: predicted segments without a partner that count.
        missed: true segments without a partner.
    """

    classes: NDArray[np.int64]
    true_classes: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    pixels: SharedPixels
    iou: NDArray[np.float64]
    fits: NDArray[np.bool_]
    partners: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    missed: NDArray[np.bool_]


class ClassQualities(NamedTuple):
    """Figures of each class in [0, 1]; NaN where the class occurs neither in the truth nor in the prediction."""

    pq: NDArray[np.float64]
    sq: NDArray[np.float64]
    rq: NDArray[np.float64]


@METRICS.register_module()
class PanopticQuality(BaseMetric):
    """PQ, SQ and RQ over all classes, things and stuff, and the PQ of each class, all fractions in [0, 1].

    `PQ`, `SQ` and `RQ` average over the classes that occur in the truth or among the predictions that count;
    `PQ_things`, `PQ_stuff` and so on over those of one kind, and are absent where none occurs, as `PQ.<class>` is.
    A class that is never matched has SQ 0. The table of all classes goes to the log.

    Each image leaves one entry in `results`, because a distributed run drops the samples it saw twice by counting
    entries. An entry lists only the classes that occur in the image, whatever the image's size.

    Args:
        thing_classes: Which of the classes are countable objects; the others are stuff. As in `MaskDetector`.
        boundary: Let the smaller of mask IoU and Boundary IoU decide and count (Boundary PQ, arXiv 2103.16562); all
            names then begin with `boundary_`.
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset
    figures: ClassVar[Sequence[str]] = tuple(
        name + group for group in ("", "_things", "_stuff") for name in ("PQ", "SQ", "RQ")
    )
    class_figure: ClassVar[str] = "PQ"

    def __init__(
        self,
        *,
        thing_classes: Sequence[int],
        boundary: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.thing_classes = tuple(thing_classes)
        self.boundary = boundary

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample.

        A sample needs `pred_panoptic_seg` (`sem_seg`: 1 H W, class + 1000 · instance number, K for void),
        `gt_instances` (`labels`: G, `masks`: G H W, a tensor or mmdet's) and, unless all classes are things,
        `gt_sem_seg` (`sem_seg`: 1 H W, stuff classes, 255 for void). Where true segments overlap, the pixels belong
        to the first: objects in their order, then stuff, then crowds; one that keeps no pixel is not counted.

        `ignored_instances` are crowds: a prediction of a crowd's class without a partner does not count if it lies on
        the crowd or void by more than half. Without `labels` they are void for every class.

        `absent_segments`, if there, are the classes of true segments that the annotation lists but does not draw
        (`LoadPanoptic` finds them). Each counts as missed, as in panopticapi.

        Raises:
            ValueError: A field is missing, prediction and truth differ in size, or a class is out of range. The
                message names the sample.
        """
        classes = class_names(self)
        is_thing = self._is_thing(len(classes))
        for sample in data_samples:
            where = describe_sample(self, sample)
            prediction = read_field(sample, "pred_panoptic_seg", ("sem_seg",), where=where).sem_seg.squeeze(0)
            truth = read_true_segments(sample, is_thing, where=where)
            check_sizes(prediction.shape, truth.segment_map.shape, where=where)
            counts = count_segments(prediction, truth, num_classes=len(classes), boundary=self.boundary, where=where)
            self.results.append(add_missed(counts, sample.get("absent_segments", ()), num_classes=len(classes)))

    def compute_metrics(self, results: Sequence[tuple[NDArray, ...]]) -> dict[str, float]:
        """Sums the entries up (mmengine turned them into plain tuples), writes the table, gives the figures.

        Raises:
            ValueError: Not a single segment in the truth.
        """
        classes = class_names(self)
        is_thing = self._is_thing(len(classes)).numpy()
        iou = np.zeros(len(classes))
        counts = np.zeros((3, len(classes)), dtype=np.int64)  # matched, wrong, missed
        for present, iou_sums, *image_counts in results:
            iou[present] += iou_sums
            counts[:, present] += np.stack(image_counts)
        matched, wrong, missed = counts
        if not (matched + missed).any():
            raise InvalidValueError(
                f"PanopticQuality: expected segments in the truth, got {len(results)} images without any (all pixels "
                "are void or background). Check the annotation files and the dataset's classes."
            )
        qualities = class_qualities(iou, matched, wrong=wrong, missed=missed)
        occurs = ~np.isnan(qualities.pq)
        groups = {"": occurs, "_things": occurs & is_thing, "_stuff": occurs & ~is_thing}
        overall = {
            name + group: float(values[members].mean())
            for group, members in groups.items()
            if members.any()
            for name, values in zip(("PQ", "SQ", "RQ"), qualities, strict=True)
        }
        return MetricReport(
            title="Boundary panoptic quality" if self.boundary else "Panoptic quality",
            overall=overall,
            class_figure=self.class_figure,
            by_class={int(label): qualities.pq[label] for label in occurs.nonzero()[0]},
            columns=dict(
                kind=["thing" if thing else "stuff" for thing in is_thing],
                **{name.upper(): [*map(fraction_cell, values)] for name, values in qualities._asdict().items()},
                matched=[*map(str, matched)],
                wrong=[*map(str, wrong)],
                missed=[*map(str, missed)],
            ),
            prefix="boundary_" if self.boundary else "",
        ).publish(classes, len(results))

    def _is_thing(self, num_classes: int) -> Tensor:
        """K, boolean."""
        outside = [index for index in self.thing_classes if not 0 <= index < num_classes]
        if outside:
            raise InvalidValueError(
                f"PanopticQuality.thing_classes: expected indices of the dataset's classes, 0…{num_classes - 1}, got "
                f"{outside}. Give the same thing_classes as to the model, and the dataset all classes."
            )
        is_thing = torch.zeros(num_classes, dtype=torch.bool)
        is_thing[list(self.thing_classes)] = True
        return is_thing


def read_true_segments(sample: Mapping, is_thing: Bool[Tensor, "K"], *, where: str) -> TrueSegments:
    """The true segments of a sample, as `PanopticQuality.process` says.

    Args:
        where: How error messages begin.

    Raises:
        ValueError: A field is missing, or a label is not a class.
    """
    # Nothing else of the sample: its img_shape is the resized image's, the annotation has the original size.
    element = BaseDataElement(metainfo=dict(img_path=where))
    element.gt_instances = read_field(sample, "gt_instances", ("labels", "masks"), where=where)
    if "gt_sem_seg" in sample or not is_thing.all():
        element.gt_sem_seg = read_field(sample, "gt_sem_seg", ("sem_seg",), where=where)
    if has_parts(sample, "ignored_instances", ("masks",)):
        element.ignored_instances = read_field(sample, "ignored_instances", ("masks",), where=where)
    target = read_segments_target(element, is_thing)
    layers, labels = target.segment_map, target.labels
    first = layers.where(layers >= 0, target.num_segments).amin(0)
    segment_map = first.where(first < target.num_segments, layers[0].clamp(min=VOID))
    if has_parts(sample, "ignored_instances", ("labels", "masks")):
        crowds = element.ignored_instances
        labels = torch.cat([labels, crowds.labels.to(labels.device)])
        for index, crowd in enumerate(read_masks(crowds).to(labels.device), start=target.num_segments):
            segment_map[crowd & (segment_map == VOID)] = index
    is_crowd = torch.arange(len(labels)) >= target.num_segments
    return TrueSegments(labels, is_crowd, segment_map)


def count_segments(
    prediction: Int[Tensor, "H W"], truth: TrueSegments, *, num_classes: int, where: str, boundary: bool = False
) -> SegmentCounts:
    """Which predicted segments of an image match which true ones, summed by class; arguments as of `pair_segments`."""
    pairs = pair_segments(prediction, truth, num_classes=num_classes, where=where, boundary=boundary)
    matched_classes = pairs.classes[pairs.partners.nonzero()[0]]
    iou_sums = np.zeros(num_classes)
    np.add.at(iou_sums, matched_classes, pairs.iou[pairs.partners])
    matched, unpaired, unfound = (
        np.bincount(c, minlength=num_classes)
        for c in (matched_classes, pairs.classes[pairs.wrong], pairs.true_classes[pairs.missed])
    )
    present = (matched + unpaired + unfound).nonzero()[0]
    return SegmentCounts(present, iou_sums[present], matched[present], unpaired[present], unfound[present])


def pair_segments(
    prediction: Int[Tensor, "H W"], truth: TrueSegments, *, num_classes: int, where: str, boundary: bool = False
) -> SegmentPairs:
    """Which predicted segments of an image match which true ones.

    Two segments of one class match where their IoU is above 0.5; the part of the prediction that lies on void is not
    in their union. A predicted segment without a partner that lies by more than half on void or crowds of its class
    does not count.

    Args:
        prediction: Class + 1000 · instance number, or `num_classes` where nothing was recognised.
        truth: Compared on the prediction's device.
        where: How error messages begin.
        boundary: Take the smaller of mask IoU and Boundary IoU.

    Raises:
        ValueError: A class is out of range.
    """
    ids, rows = prediction.long().unique(return_inverse=True)
    predicted_ids, truth_classes, is_crowd = (t.cpu().numpy() for t in (ids, truth.labels, truth.is_crowd))
    _check_classes(predicted_ids, truth_classes, num_classes=num_classes, where=where)
    segments = truth.segment_map.to(rows.device)
    size = (len(ids), len(truth_classes))
    pixels = _count_shared(rows, segments, size)
    iou, fits = _pair_ious(pixels, pixels, pixels)
    if boundary:
        near, near_true = _boundary_regions(rows), _boundary_regions(segments)
        regions = (near & near_true, near, near_true)
        region_iou, region_fits = _pair_ious(*(_count_shared(rows[r], segments[r], size) for r in regions))
        iou, fits = np.minimum(iou, region_iou), fits & region_fits

    classes = predicted_ids % INSTANCE_OFFSET
    same_class = classes[:, None] == truth_classes
    # True segments are disjoint: no row or column has two partners.
    partners = same_class & fits & ~is_crowd
    excused = pixels.void + (pixels.true * (same_class & is_crowd)).sum(1)
    wrong = (classes != num_classes) & ~partners.any(1) & (2 * excused <= pixels.void + pixels.of_predicted())
    missed = ~is_crowd & ~partners.any(0) & (pixels.of_true() > 0)
    return SegmentPairs(classes, truth_classes, is_crowd, pixels, iou, fits, partners, wrong, missed)


def add_missed(counts: SegmentCounts, absent: Sequence[int], *, num_classes: int) -> SegmentCounts:
    """The counts of an image with one more missed segment for each class in `absent`."""
    if not absent:
        return counts
    dense = np.zeros((4, num_classes))
    dense[:, counts.classes] = counts[1:]
    dense[3] += np.bincount(absent, minlength=num_classes)
    present = np.flatnonzero(dense[1:].sum(0))
    iou, *numbers = dense[:, present]
    matched, wrong, missed = (column.astype(np.int64) for column in numbers)
    return SegmentCounts(present, iou, matched, wrong, missed)


def _count_shared(predicted: Int[Tensor, "*S"], segment_map: Int[Tensor, "*S"], size: tuple[int, int]) -> SharedPixels:
    """Counts pairs of a predicted segment (0 to N - 1) and what is there in truth, over the given pixels.

    Args:
        size: N and G.
    """
    num_predicted, num_true = size
    void, background = num_true, num_true + 1  # columns behind those of the true segments
    columns = segment_map.where(segment_map != VOID, void).where(segment_map != BACKGROUND, background)
    num_columns = num_true + 2
    cells = (predicted * num_columns + columns).flatten()
    counts = torch.bincount(cells, minlength=num_predicted * num_columns).unflatten(0, (num_predicted, num_columns))
    table = counts.cpu().numpy()
    return SharedPixels(table[:, void], table[:, background], table[:, :num_true])


def _pair_ious(
    common: SharedPixels, predicted: SharedPixels, true: SharedPixels
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """IoU of each predicted with each true segment (N G), and whether it is above 0.5.

    Args:
        common: counted over the pixels in the regions of both segments.
        predicted: counted over those in the region of the predicted segment.
        true: counted over those in the region of the true segment.
    """
    union = predicted.of_predicted()[:, None] + true.of_true() - common.true
    # In whole numbers, so that exactly one half is not above.
    return common.true / np.maximum(union, 1), 2 * common.true > union


def _boundary_regions(segment_map: Int[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    height, width = segment_map.shape
    region = boundary_pixels(segment_map.cpu().numpy(), boundary_width((height, width)))
    return torch.from_numpy(region).to(segment_map.device)


def _check_classes(
    predicted_ids: NDArray[np.int64], truth_classes: NDArray[np.int64], *, num_classes: int, where: str
) -> None:
    wrong_ids = predicted_ids[(predicted_ids < 0) | (predicted_ids % INSTANCE_OFFSET > num_classes)]
    if len(wrong_ids):
        raise InvalidValueError(
            f"{where}: expected predicted ids of class + {INSTANCE_OFFSET} · instance number with "
            f"classes 0…{num_classes - 1}, or {num_classes} for void, got {wrong_ids.tolist()}. Check the dataset's "
            "classes and the head's num_classes."
        )
    wrong = truth_classes[(truth_classes < 0) | (truth_classes >= num_classes)]
    if len(wrong):
        raise InvalidValueError(
            f"{where}: expected true segments of classes 0…{num_classes - 1}, got {wrong.tolist()}. "
            "Check the annotation and the dataset's classes."
        )


def class_qualities(
    iou: NDArray[np.float64], matched: NDArray[np.int64], *, wrong: NDArray[np.int64], missed: NDArray[np.int64]
) -> ClassQualities:
    """PQ, SQ and RQ of each class from its summed IoU and its numbers of segments; all K."""
    unknown = np.full(len(iou), np.nan)
    weight = matched + wrong / 2 + missed / 2
    pq = np.divide(iou, weight, out=unknown.copy(), where=weight > 0)
    rq = np.divide(matched, weight, out=unknown.copy(), where=weight > 0)
    sq = np.where(weight > 0, iou / np.maximum(matched, 1), np.nan)
    return ClassQualities(pq, sq, rq)
