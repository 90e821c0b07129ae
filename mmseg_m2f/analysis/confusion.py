"""Which class is taken for which: of pixels, segments or objects."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mmseg_m2f.analysis.judged_samples import EvaluatedData, Task
from mmseg_m2f.core.postprocess import INSTANCE_OFFSET
from mmseg_m2f.evaluation.object_overlaps import read_objects
from mmseg_m2f.evaluation.panoptic_quality import read_true_segments
from mmseg_m2f.evaluation.semantic_iou import SemanticIoU
from mmseg_m2f.structures import VOID
from mmseg_m2f.visualization.fonts import drawable_names

NOTHING = "(nothing)"
_MIN_IOU = 0.5
_MOST_NUMBERS = 30  # classes; in a larger matrix they would not be legible
_UNITS: dict[Task, str] = dict(semantic="pixels", panoptic="segments", instance="objects")


@dataclass
class ConfusionMatrix:
    """Counts of truth (rows) and prediction (columns).

    Attributes:
        counts: K K of pixels; for segments and objects K1 K1, the last row and column being nothing: a segment or
            object without a partner.
        names: of rows and columns.
        unit: what is counted.
    """

    counts: Int[np.ndarray, "K2 K2"]
    names: list[str]
    unit: str

    def csv(self) -> str:
        """The counts with names: one line for each true class."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"truth \\ prediction, {self.unit}", *self.names])
        for name, row in zip(self.names, self.counts.tolist(), strict=True):
            writer.writerow([name, *row])
        return file.getvalue()

    def picture(self) -> Image.Image:
        """Each row as shares of the true class."""
        return draw_matrix(self.counts, self.names, unit=self.unit)

    def worst(self, most: int = 5) -> list[str]:
        """The most frequent confusions, as text."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        rows = np.maximum(self.counts.sum(1), 1)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [np.unravel_index(index, wrong.shape) for index in order if wrong.flat[index]]
        return [
            f"{self.names[true]} taken for {self.names[found]}: {wrong[true, found]:,} {self.unit} "
            f"({wrong[true, found] / rows[true]:.1%} of {self.names[true]})"
            for true, found in pairs
        ]


class ConfusionCounter:
    """Adds up the samples of a test set."""

    def __init__(self, task: Task, *, score_threshold: float = 0.5) -> None:
        self.task, self.score_threshold = task, score_threshold
        self._counts: Int[np.ndarray, "K2 K2"] | None = None

    def __call__(self, sample: Mapping, data: EvaluatedData) -> None:
        """Add one sample."""
        num_classes = len(data.classes)
        found = _COUNTERS[self.task](sample, data, self.score_threshold)
        if self._counts is None:
            side = num_classes + (self.task != "semantic")
            self._counts = np.zeros((side, side), dtype=np.int64)
        self._counts += found

    def matrix(self, classes: Sequence[str]) -> ConfusionMatrix:
        """All samples so far."""
        names = [*classes] if self.task == "semantic" else [*classes, NOTHING]
        counts = np.zeros((len(names), len(names)), dtype=np.int64) if self._counts is None else self._counts
        return ConfusionMatrix(counts, names, _UNITS[self.task])


def pixel_confusion(sample: Mapping, data: EvaluatedData, _: float = 0.0) -> Int[np.ndarray, "K K"]:
    """Labelled pixels by true and predicted class."""
    metric = SemanticIoU()
    metric.dataset_meta = dict(classes=data.classes)
    metric.process(None, [sample])
    counts = np.zeros(len(data.classes) ** 2, dtype=np.int64)
    cells, numbers = metric.results[0]
    counts[cells] = numbers
    return counts.reshape(len(data.classes), -1)


def segment_confusion(sample: Mapping, data: EvaluatedData, _: float = 0.0) -> Int[np.ndarray, "K1 K1"]:
    """Segments of a panoptic map: pairs with an IoU above 0.5, whatever their classes; the others pair with nothing.

    Predicted segments that lie by more than half on void or crowds are left out, and crowds themselves.
    """
    num_classes = len(data.classes)
    truth = read_true_segments(sample, torch.from_numpy(data.is_thing), where=str(sample.get("img_path")))
    prediction = sample["pred_panoptic_seg"]["sem_seg"].squeeze(0).cpu().numpy()
    segment_map, labels = truth.segment_map.cpu().numpy(), truth.labels.cpu().numpy()
    is_crowd = truth.is_crowd.cpu().numpy()
    ids, rows = np.unique(prediction, return_inverse=True)
    rows = rows.reshape(prediction.shape)
    found = ids % INSTANCE_OFFSET
    shared = np.zeros((len(ids), len(labels)), dtype=np.int64)
    inside = segment_map >= 0
    np.add.at(shared, (rows[inside], segment_map[inside]), 1)
    areas = np.bincount(rows.ravel(), minlength=len(ids))
    void = np.bincount(rows[segment_map == VOID], minlength=len(ids)) + shared[:, is_crowd].sum(1)
    union = (areas - void)[:, None] + shared.sum(0) - shared
    pairs = (2 * shared > union) & ~is_crowd & (found != num_classes)[:, None]
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    predicted, true = pairs.nonzero()
    np.add.at(counts, (labels[true], found[predicted]), 1)
    lost = ~pairs.any(0) & ~is_crowd & (shared.sum(0) > 0)
    np.add.at(counts, (labels[lost], num_classes), 1)
    spare = ~pairs.any(1) & (found != num_classes) & (2 * void <= areas)
    np.add.at(counts, (num_classes, found[spare]), 1)
    return counts


def object_confusion(sample: Mapping, data: EvaluatedData, score_threshold: float = 0.5) -> Int[np.ndarray, "K1 K1"]:
    """Detections with at least a score: each takes the free object of any class that it overlaps most, from IoU 0.5 on.

    The surest detection comes first. Those that lie in a crowd by more than half are left out.
    """
    num_classes = len(data.classes)
    detected, true = read_objects(sample, num_classes, where=str(sample.get("img_path")))
    kept = np.flatnonzero(detected.scores >= score_threshold)
    kept = kept[np.argsort(-detected.scores[kept], kind="stable")]
    masks, labels = detected.masks.select(kept), detected.labels[kept]
    common = masks.shared_pixels(true.masks, np.ones((len(kept), len(true.labels)), dtype=bool))
    areas = masks.areas()[:, None]
    union = areas + np.where(true.is_crowd, 0, true.masks.areas() - common)
    ious = np.divide(common, union, out=np.zeros(common.shape), where=union > 0)
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    free = ~true.is_crowd
    for label, row in zip(labels, ious, strict=True):
        best = int(np.where(free, row, -1).argmax()) if len(row) else -1
        if best >= 0 and free[best] and row[best] >= _MIN_IOU:
            free[best] = False
            counts[true.labels[best], label] += 1
        elif not (row[true.is_crowd] > _MIN_IOU).any():
            counts[num_classes, label] += 1
    np.add.at(counts, (true.labels[free], num_classes), 1)
    return counts


_COUNTERS: dict[Task, Callable[[Mapping, EvaluatedData, float], Int[np.ndarray, "K2 K2"]]] = dict(
    semantic=pixel_confusion, panoptic=segment_confusion, instance=object_confusion
)


def draw_matrix(counts: Int[np.ndarray, "K2 K2"], names: Sequence[str], *, unit: str) -> Image.Image:
    """Shares of each row as shades of blue, with numbers where there are up to thirty classes."""
    names = drawable_names(names)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(0.45 * len(names) + 3, 5), 30)
    figure = Figure(figsize=(side + 0.8, side), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks, size = range(len(names)), 9 if len(names) <= _MOST_NUMBERS else 6
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(f"Share of the {unit} of each true class, %")
    if len(names) <= _MOST_NUMBERS:
        for row, column in np.ndindex(*shares.shape):
            if counts[row, column]:
                dark = shares[row, column] > 0.55
                text = f"{100 * shares[row, column]:.0f}" if shares[row, column] >= 0.005 else "<1"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    figure.colorbar(image, ax=axes, shrink=0.7, format=lambda share, _: f"{100 * share:.0f} %")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
