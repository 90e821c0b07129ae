"""Intersection over union of semantic predictions."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from mmengine.evaluator import BaseMetric
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor

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


class PixelCounts(NamedTuple):
    """The occupied cells of one image's confusion matrix: K K, and K1 K1 for boundary regions.

    `cells` holds truth * K + prediction (or K1), ascending, each once; `counts` the number of pixels of each.
    """

    cells: NDArray[np.int64]
    counts: NDArray[np.int64]


@METRICS.register_module()
class SemanticIoU(BaseMetric):
    """mIoU, pixel accuracy, mean class accuracy and the IoU of each class, all fractions in [0, 1].

    `mIoU` averages over the classes that occur in the truth or in the prediction, `mAcc` over those that
    occur in the truth; a class that occurs in neither has no `IoU.<class>` entry. Void pixels count nowhere.
    The table of all classes goes to the log.

    Each image leaves one entry in `results`, because a distributed run drops the samples it saw twice by
    counting entries. An entry lists only the pairs of classes that occur in the image: a few hundred bytes
    to a few kilobytes whatever the image's size.

    Args:
        ignore_index: Truth label that is not evaluated.
        boundary: Compare the boundary regions of each class instead (Boundary IoU, arXiv 2103.16562): gives
            `boundary_mIoU` and `boundary_IoU.<class>`. The prediction's regions are those of the prediction with
            void cut out, so that a right one has Boundary IoU 1.
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset
    figures: ClassVar[Sequence[str]] = ("mIoU", "aAcc", "mAcc")
    class_figure: ClassVar[str] = "IoU"

    def __init__(
        self,
        *,
        ignore_index: int = 255,
        boundary: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index
        self.boundary = boundary

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample.

        A sample needs `pred_sem_seg` and `gt_sem_seg`, each with mmseg's `data` or mmdet's `sem_seg` (1 H W or H W).
        Where it has `gt_instances` with masks, as mmdet packs them, objects win over the label map, the first over
        later ones: the map may then hold stuff alone.

        Raises:
            ValueError: A field is missing, prediction and truth differ in size, or a label is outside the classes.
                The message names the sample.
        """
        classes = class_names(self)
        for sample in data_samples:
            where = describe_sample(self, sample)
            prediction, truth = semantic_maps(sample, where=where)
            self.results.append(
                count_pixels(
                    prediction,
                    truth,
                    num_classes=len(classes),
                    ignore_index=self.ignore_index,
                    boundary=self.boundary,
                    where=where,
                )
            )

    def compute_metrics(self, results: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> dict[str, float]:
        """Sums the entries up (mmengine turned them into plain tuples), writes the table, gives the figures.

        Raises:
            ValueError: Not a single pixel has a class in the truth.
        """
        classes = class_names(self)
        side = len(classes) + self.boundary
        totals = np.zeros(side**2, dtype=np.int64)
        for cells, counts in results:
            totals[cells] += counts
        if not totals.any():
            raise InvalidValueError(
                f"SemanticIoU: expected labelled pixels, got {len(results)} images without any "
                f"(all pixels are {self.ignore_index}). Check the label files and the dataset's label map."
            )
        confusion = totals.reshape(side, side)
        hits, in_truth = (figures[: len(classes)] for figures in (confusion.diagonal(), confusion.sum(1)))
        iou = class_ious(confusion)[: len(classes)]
        accuracy = np.divide(hits, in_truth, out=np.full(len(classes), np.nan), where=in_truth > 0)
        overall = dict(mIoU=float(np.nanmean(iou)))
        if not self.boundary:
            overall |= dict(aAcc=float(hits.sum() / in_truth.sum()), mAcc=float(np.nanmean(accuracy)))
        return MetricReport(
            title="Boundary IoU" if self.boundary else "IoU",
            overall=overall,
            class_figure=self.class_figure,
            by_class={int(label): iou[label] for label in np.flatnonzero(~np.isnan(iou))},
            columns=dict(
                IoU=[*map(fraction_cell, iou)],
                Acc=[*map(fraction_cell, accuracy)],
                pixels=[f"{share:.1%}" for share in in_truth / in_truth.sum()],
            ),
            prefix="boundary_" if self.boundary else "",
        ).publish(classes, len(results))


def semantic_maps(sample: Mapping, *, where: str) -> tuple[Shaped[Tensor, "H W"], Shaped[Tensor, "H2 W2"]]:
    """Predicted and true classes of each pixel, as `SemanticIoU.process` reads them.

    Args:
        where: How error messages begin.

    Raises:
        ValueError: A field is missing.
    """
    prediction = _label_map(sample, "pred_sem_seg", where=where)
    truth = _label_map(sample, "gt_sem_seg", where=where)
    if has_parts(sample, "gt_instances", ("labels", "masks")):
        truth = _draw_objects(truth, read_field(sample, "gt_instances", where=where))
    return prediction, truth


def class_ious(confusion: Int[np.ndarray, "K K"]) -> Float[np.ndarray, "K"]:
    """IoU of each class; NaN where it occurs neither in the truth (rows) nor in the prediction (columns)."""
    hits = confusion.diagonal()
    union = confusion.sum(1) + confusion.sum(0) - hits
    return np.divide(hits, union, out=np.full(len(confusion), np.nan), where=union > 0)


def count_pixels(
    prediction: Shaped[Tensor, "H W"],
    truth: Shaped[Tensor, "H2 W2"],
    *,
    num_classes: int,
    ignore_index: int,
    where: str,
    boundary: bool = False,
) -> PixelCounts:
    """How many pixels of an image have which class in the truth and which in the prediction.

    Args:
        prediction: Integer classes in [0, K).
        truth: Integer classes in [0, K) or `ignore_index`; compared on the prediction's device.
        where: How error messages begin.
        boundary: Take a pixel's class where it lies in the boundary region of its class, and K elsewhere.

    Raises:
        ValueError: Different sizes, or a class out of range at a pixel that counts.
    """
    check_sizes(prediction.shape, truth.shape, where=where)
    truth = truth.to(prediction.device).long()
    valid = truth != ignore_index
    maps = torch.stack((truth, prediction.long()))  # 2 H W
    pairs = maps[:, valid]
    check_labels(*pairs, num_classes=num_classes, ignore_index=ignore_index, where=where)
    if boundary:
        label_maps = maps.where(valid, ignore_index).cpu().numpy()
        width = boundary_width((label_maps.shape[1], label_maps.shape[2]))
        regions = torch.from_numpy(np.stack([boundary_pixels(label_map, width) for label_map in label_maps]))
        pairs = pairs.where(regions.to(pairs.device)[:, valid], num_classes)
    cells = torch.bincount(pairs[0] * (num_classes + boundary) + pairs[1], minlength=1)
    occupied = cells.nonzero()[:, 0]
    return PixelCounts(occupied.cpu().numpy(), cells[occupied].cpu().numpy())


def check_labels(
    true: Int[Tensor, "N"], predicted: Int[Tensor, "N"], *, num_classes: int, ignore_index: int, where: str
) -> None:
    """Compares the labels of the pixels that count with the classes.

    Raises:
        ValueError: A label or a prediction is outside the classes.
    """
    if not true.numel():
        return
    pairs = torch.stack((true, predicted))
    low, high = pairs.amin(1).tolist(), pairs.amax(1).tolist()
    for what, least, most in zip(("label", "predicted class"), low, high, strict=True):
        if least < 0 or most >= num_classes:
            raise InvalidValueError(
                f"{where}: expected every {what} in 0...{num_classes - 1}, or {ignore_index} for void in the "
                f"label, got {least if least < 0 else most}. Check the dataset's classes, reduce_zero_label and "
                "the head's num_classes."
            )


def _label_map(sample: Mapping, key: str, *, where: str) -> Shaped[Tensor, "H W"]:
    field = read_field(sample, key, where=where)
    part = "data" if "data" in field else "sem_seg"
    labels = read_field(sample, key, (part,), where=where).get(part)
    return labels.squeeze(0) if labels.ndim == 3 else labels


def _draw_objects(label_map: Shaped[Tensor, "H W"], objects: BaseDataElement) -> Int[Tensor, "H W"]:
    drawn = label_map.long().clone()
    masks = read_masks(objects).to(drawn.device)
    for label, mask in zip(objects.labels.flip(0).tolist(), masks.flip(0), strict=True):
        drawn[mask] = label
    return drawn
