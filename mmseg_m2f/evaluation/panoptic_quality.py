"""Panoptic quality ("Panoptic Segmentation", arXiv 1801.00868, section 4).

Deviations:
- Crowds (`ignored_instances`) are void for every class, so that they also leave the union of an overlapping
  prediction. In COCO's own evaluation a crowd excuses predictions of its class alone and stays in the union.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor

from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.registry import METRICS
from mmseg_m2f.samples import read_segments_target
from mmseg_m2f.structures import VOID


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
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset

    def __init__(self, *, thing_classes: Sequence[int], collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.thing_classes = tuple(thing_classes)

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample.

        A sample needs `pred_panoptic_seg` (`sem_seg`: 1 H W, class + 1000 · instance number, K for void),
        `gt_instances` (`labels`: G, `masks`: G H W, a tensor or mmdet's) and, unless all classes are things,
        `gt_sem_seg` (`sem_seg`: 1 H W, stuff classes, 255 for void). `ignored_instances` are crowds. Where true
        segments overlap, the pixels belong to the first: objects in their order, then stuff; one that keeps no pixel
        is not counted.

        Raises:
            ValueError: A field is missing, prediction and truth differ in size, or a class is out of range. The
                message names the sample.
        """
        classes = self._classes()
        is_thing = self._is_thing(len(classes))
        for sample in data_samples:
            name = str(sample.get("img_path") or f"sample {len(self.results)}")
            prediction = _field(sample, "pred_panoptic_seg", ("sem_seg",), name=name).sem_seg.squeeze(0)
            labels, truth = _read_truth(sample, is_thing, name=name)
            if prediction.shape != truth.shape:
                raise ValueError(
                    f"PanopticQuality, {name}: expected a prediction of the annotation's size {tuple(truth.shape)}, "
                    f"got {tuple(prediction.shape)}. Load the annotation after the resizing transforms of the test "
                    "pipeline, so that it keeps the original size."
                )
            self.results.append(count_segments(prediction, truth, labels=labels, num_classes=len(classes), name=name))

    def compute_metrics(self, results: Sequence[tuple[NDArray, ...]]) -> dict[str, float]:
        """Sums the entries up (mmengine turned them into plain tuples), writes the table, gives the figures.

        Raises:
            ValueError: Not a single segment in the truth.
        """
        classes = self._classes()
        is_thing = self._is_thing(len(classes)).numpy()
        iou = np.zeros(len(classes))
        counts = np.zeros((3, len(classes)), dtype=np.int64)  # matched, wrong, missed
        for present, iou_sums, *image_counts in results:
            iou[present] += iou_sums
            counts[:, present] += np.stack(image_counts)
        matched, wrong, missed = counts
        if not (matched + missed).any():
            raise ValueError(
                f"PanopticQuality: expected segments in the truth, got {len(results)} images without any (all pixels "
                "are void or background). Check the annotation files and the dataset's classes."
            )
        qualities = _qualities(iou, matched, wrong=wrong, missed=missed)
        occurs = ~np.isnan(qualities.pq)
        groups = {"": occurs, "_things": occurs & is_thing, "_stuff": occurs & ~is_thing}
        metrics = {
            name + group: float(values[members].mean())
            for group, members in groups.items()
            if members.any()
            for name, values in zip(("PQ", "SQ", "RQ"), qualities, strict=True)
        }
        table = _format_table(classes, is_thing=is_thing, qualities=qualities, counts=counts)
        summary = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print_log(
            f"Panoptic quality of {len(classes)} classes on {len(results)} images\n{table}\n{summary}",
            logger="current",
        )
        return metrics | {f"PQ.{classes[c]}": float(qualities.pq[c]) for c in occurs.nonzero()[0]}

    def _classes(self) -> Sequence[str]:
        classes = (self.dataset_meta or {}).get("classes")
        if not classes:
            raise ValueError(
                f"PanopticQuality: expected class names in the dataset's metainfo, got {self.dataset_meta}. "
                "Pass metainfo=dict(classes=[...]) to the validation dataset."
            )
        return classes

    def _is_thing(self, num_classes: int) -> Tensor:
        """K, boolean."""
        outside = [index for index in self.thing_classes if not 0 <= index < num_classes]
        if outside:
            raise ValueError(
                f"PanopticQuality.thing_classes: expected indices of the dataset's classes, 0…{num_classes - 1}, got "
                f"{outside}. Give the same thing_classes as to the model, and the dataset all classes."
            )
        is_thing = torch.zeros(num_classes, dtype=torch.bool)
        is_thing[list(self.thing_classes)] = True
        return is_thing


def count_segments(
    prediction: Int[Tensor, "H W"],
    truth: Int[Tensor, "H W"],
    *,
    labels: Int[Tensor, "G"],
    num_classes: int,
    name: str,
) -> SegmentCounts:
    """Which predicted segments of an image answer for which true ones.

    Two segments of one class match where their IoU is above 0.5; the part of the prediction that lies on void is not
    in their union. A predicted segment without a partner that lies on void by more than half does not count.

    Args:
        prediction: Class + 1000 · instance number, or `num_classes` where nothing was recognised.
        truth: Index into `labels`, `BACKGROUND` or `VOID`; compared on the prediction's device.
        labels: Class of each true segment, in [0, K).
        name: What error messages call the image.

    Raises:
        ValueError: A class is out of range.
    """
    ids, rows = prediction.long().unique(return_inverse=True)
    first = -VOID  # column 0: void, 1: background, then the true segments
    width = first + len(labels)
    cells = (rows * width + truth.to(rows.device) - VOID).flatten()
    pixels = torch.bincount(cells, minlength=len(ids) * width).unflatten(0, (-1, width)).cpu().numpy()
    predicted_ids, truth_classes = ids.cpu().numpy(), labels.cpu().numpy()
    _check_classes(predicted_ids, truth_classes, num_classes=num_classes, name=name)

    truth_area = pixels.sum(0)[first:]
    recognised = predicted_ids % INSTANCE_OFFSET != num_classes
    classes, pixels = predicted_ids[recognised] % INSTANCE_OFFSET, pixels[recognised]
    area, on_void, common = pixels.sum(1), pixels[:, 0], pixels[:, first:]
    union = (area - on_void)[:, None] + truth_area - common
    # In whole numbers, so that exactly one half is no match. True segments are disjoint: no row or column has two.
    partners = (classes[:, None] == truth_classes) & (2 * common > union)
    wrong = ~partners.any(1) & (2 * on_void <= area)
    missed = ~partners.any(0) & (truth_area > 0)

    matched_classes = classes[partners.nonzero()[0]]
    iou = np.zeros(num_classes)
    np.add.at(iou, matched_classes, common[partners] / union[partners])
    matched, unpaired, unfound = (
        np.bincount(c, minlength=num_classes) for c in (matched_classes, classes[wrong], truth_classes[missed])
    )
    present = (matched + unpaired + unfound).nonzero()[0]
    return SegmentCounts(present, iou[present], matched[present], unpaired[present], unfound[present])


def _check_classes(
    predicted_ids: NDArray[np.int64], truth_classes: NDArray[np.int64], *, num_classes: int, name: str
) -> None:
    wrong_ids = predicted_ids[(predicted_ids < 0) | (predicted_ids % INSTANCE_OFFSET > num_classes)]
    if len(wrong_ids):
        raise ValueError(
            f"PanopticQuality, {name}: expected predicted ids of class + {INSTANCE_OFFSET} · instance number with "
            f"classes 0…{num_classes - 1}, or {num_classes} for void, got {wrong_ids.tolist()}. Check the dataset's "
            "classes and the head's num_classes."
        )
    wrong = truth_classes[(truth_classes < 0) | (truth_classes >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"PanopticQuality, {name}: expected true segments of classes 0…{num_classes - 1}, got {wrong.tolist()}. "
            "Check the annotation and the dataset's classes."
        )


def _read_truth(sample: Mapping, is_thing: Tensor, *, name: str) -> tuple[Int[Tensor, "G"], Int[Tensor, "H W"]]:
    """Classes of the true segments and the map that says which pixel belongs to which."""
    # Nothing else of the sample: its img_shape is the resized image's, the annotation has the original size.
    element = BaseDataElement(metainfo=dict(img_path=name))
    element.gt_instances = _field(sample, "gt_instances", ("labels", "masks"), name=name)
    if "gt_sem_seg" in sample or not is_thing.all():
        element.gt_sem_seg = _field(sample, "gt_sem_seg", ("sem_seg",), name=name)
    if "masks" in sample.get("ignored_instances", ()):  # mmdet packs an empty structure where none were loaded
        element.ignored_instances = _field(sample, "ignored_instances", ("masks",), name=name)
    target = read_segments_target(element, is_thing)
    sheets = target.segment_map
    first = sheets.where(sheets >= 0, target.num_segments).amin(0)
    return target.labels, first.where(first < target.num_segments, sheets[0])


def _field(sample: Mapping, key: str, parts: Sequence[str], *, name: str) -> BaseDataElement:
    """The structure under `key`, which the evaluator passes as a dict and other callers as an object."""
    value = sample.get(key)
    found = [] if value is None else sorted(value.keys())
    if not set(parts) <= set(found):
        raise ValueError(
            f"PanopticQuality, {name}: expected '{key}' with {', '.join(parts)} in the sample, got "
            f"{sorted(sample) if value is None else found}. Evaluate a MaskDetector that answers panoptic, on a "
            "dataset whose test pipeline loads and packs masks and semantic labels."
        )
    return BaseDataElement(**value) if isinstance(value, Mapping) else value


def _qualities(
    iou: NDArray[np.float64], matched: NDArray[np.int64], *, wrong: NDArray[np.int64], missed: NDArray[np.int64]
) -> ClassQualities:
    unknown = np.full(len(iou), np.nan)
    weight = matched + wrong / 2 + missed / 2
    pq = np.divide(iou, weight, out=unknown.copy(), where=weight > 0)
    rq = np.divide(matched, weight, out=unknown.copy(), where=weight > 0)
    sq = np.where(weight > 0, iou / np.maximum(matched, 1), np.nan)
    return ClassQualities(pq, sq, rq)


def _format_table(
    classes: Sequence[str], *, is_thing: NDArray[np.bool_], qualities: ClassQualities, counts: NDArray[np.int64]
) -> str:
    """One line for each class; a dash where the class does not occur."""
    width = max(len("class"), *(len(c) for c in classes))
    lines = [f"{'class':<{width}}  kind       PQ      SQ      RQ  matched  wrong  missed"]
    for name, thing, values, numbers in zip(classes, is_thing, np.transpose(qualities), counts.T, strict=True):
        figures = "".join(f"{'-' if np.isnan(v) else format(v, '.4f'):>8}" for v in values)
        matched, wrong, missed = numbers
        kind = "thing" if thing else "stuff"
        lines.append(f"{name:<{width}}  {kind}{figures}{matched:>9}{wrong:>7}{missed:>8}")
    return "\n".join(lines)
