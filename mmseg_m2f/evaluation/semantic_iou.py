"""Intersection over union of semantic predictions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from numpy.typing import NDArray
from torch import Tensor

from mmseg_m2f.registry import METRICS


class PixelCounts(NamedTuple):
    """The occupied cells of one image's K K confusion matrix.

    `cells` holds truth * K + prediction, ascending, each once; `counts` the number of pixels of each.
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
        collect_device: Where a distributed run gathers the entries, "cpu" or "gpu".
        prefix: Put before every name, with a slash.
    """

    default_prefix = ""  # none; mmengine warns where this is unset

    def __init__(self, *, ignore_index: int = 255, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Adds one entry for each sample, which needs `pred_sem_seg` and `gt_sem_seg` (`data`: 1 H W or H W).

        Raises:
            ValueError: Prediction and truth differ in size, or a label is outside the classes. The message
                names the sample.
        """
        classes = self._classes()
        for sample in data_samples:
            name = str(sample.get("img_path") or sample.get("seg_map_path") or f"sample {len(self.results)}")
            prediction = _label_map(sample, "pred_sem_seg", name=name)
            truth = _label_map(sample, "gt_sem_seg", name=name)
            self.results.append(
                count_pixels(prediction, truth, num_classes=len(classes), ignore_index=self.ignore_index, name=name)
            )

    def compute_metrics(self, results: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> dict[str, float]:
        """Sums the entries up (mmengine turned them into plain tuples), writes the table, gives the figures.

        Raises:
            ValueError: Not a single pixel has a class in the truth.
        """
        classes = self._classes()
        totals = np.zeros(len(classes) ** 2, dtype=np.int64)
        for cells, counts in results:
            totals[cells] += counts
        if not totals.any():
            raise ValueError(
                f"SemanticIoU: expected labelled pixels, got {len(results)} images without any "
                f"(all pixels are {self.ignore_index}). Check the label files and the dataset's label map."
            )
        confusion = totals.reshape(len(classes), len(classes))
        hits, in_truth, in_prediction = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        union = in_truth + in_prediction - hits
        iou = np.divide(hits, union, out=np.full(len(classes), np.nan), where=union > 0)
        accuracy = np.divide(hits, in_truth, out=np.full(len(classes), np.nan), where=in_truth > 0)
        metrics = dict(
            mIoU=float(np.nanmean(iou)),
            aAcc=float(hits.sum() / in_truth.sum()),
            mAcc=float(np.nanmean(accuracy)),
        )
        table = _format_table(classes, iou=iou, accuracy=accuracy, share=in_truth / in_truth.sum())
        summary = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print_log(f"IoU of {len(classes)} classes on {len(results)} images\n{table}\n{summary}", logger="current")
        return metrics | {f"IoU.{c}": float(v) for c, v in zip(classes, iou, strict=True) if not np.isnan(v)}

    def _classes(self) -> Sequence[str]:
        classes = (self.dataset_meta or {}).get("classes")
        if not classes:
            raise ValueError(
                f"SemanticIoU: expected class names in the dataset's metainfo, got {self.dataset_meta}. "
                "Pass metainfo=dict(classes=[...]) to the validation dataset."
            )
        return classes


def count_pixels(prediction: Tensor, truth: Tensor, *, num_classes: int, ignore_index: int, name: str) -> PixelCounts:
    """How many pixels of an image have which class in the truth and which in the prediction.

    Args:
        prediction: H W, integer classes in [0, K).
        truth: H W, integer classes in [0, K) or `ignore_index`; compared on the prediction's device.
        name: What error messages call the image.

    Raises:
        ValueError: Different sizes, or a class out of range at a pixel that counts.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"SemanticIoU, {name}: expected a prediction of the label's size {tuple(truth.shape)}, got "
            f"{tuple(prediction.shape)}. Load the annotation after the resizing transforms of the test "
            "pipeline, so that it keeps the original size."
        )
    truth = truth.to(prediction.device).long()
    valid = truth != ignore_index
    pairs = torch.stack((truth[valid], prediction[valid].long()))  # 2 N
    if pairs.numel():
        low, high = pairs.amin(1).tolist(), pairs.amax(1).tolist()
        for what, least, most in zip(("label", "predicted class"), low, high, strict=True):
            if least < 0 or most >= num_classes:
                raise ValueError(
                    f"SemanticIoU, {name}: expected every {what} in 0...{num_classes - 1}, or {ignore_index} "
                    f"for void in the label, got {least if least < 0 else most}. Check the dataset's "
                    "classes, reduce_zero_label and the head's num_classes."
                )
    cells = torch.bincount(pairs[0] * num_classes + pairs[1], minlength=1)
    occupied = cells.nonzero()[:, 0]
    return PixelCounts(occupied.cpu().numpy(), cells[occupied].cpu().numpy())


def _label_map(sample: Mapping, key: str, *, name: str) -> Tensor:
    """H W: the labels under `key`, which the evaluator passes as a dict and other callers as an object."""
    if key not in sample:
        raise ValueError(
            f"SemanticIoU, {name}: expected '{key}' in the sample, got {sorted(sample)}. Evaluate a semantic "
            "segmentor on a dataset whose pipeline loads annotations."
        )
    value = sample[key]
    labels = value["data"] if isinstance(value, Mapping) else value.data
    return labels.squeeze(0) if labels.ndim == 3 else labels


def _format_table(
    classes: Sequence[str],
    *,
    iou: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    share: NDArray[np.float64],
) -> str:
    """One line for each class; a dash where the class does not occur."""
    width = max(len("class"), *(len(c) for c in classes))
    lines = [f"{'class':<{width}}     IoU     Acc  pixels"]
    for name, *values in zip(classes, iou, accuracy, strict=True):
        cells = "".join(f"{'-' if np.isnan(v) else format(v, '.4f'):>8}" for v in values)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join([lines[0], *(f"{line}{s:>8.1%}" for line, s in zip(lines[1:], share, strict=True))])
