"""What costs mIoU, pixel by pixel.

Each wrong pixel belongs to one kind, the first that fits:
- boundary: no further from a border between two labels of the truth than Boundary IoU looks (`boundary_width`: 2 % of
the
  diagonal);
- missed: its true class is predicted nowhere in the image;
- void: its predicted class is nowhere in the image's truth;
- class: both classes are there, but elsewhere.

Mended, the pixels have their true class.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from mmseg_m2f.analysis.error_table import ErrorKind, ErrorRow, ErrorTable
from mmseg_m2f.analysis.judged_samples import EvaluatedData
from mmseg_m2f.evaluation.boundary import boundary_pixels, boundary_width
from mmseg_m2f.evaluation.semantic_iou import class_ious, semantic_maps
from mmseg_m2f.structures import IGNORE_INDEX

_KINDS: tuple[ErrorKind, ...] = ("class", "boundary", "void", "missed")


class SemanticErrors:
    """Adds up the samples of a test set."""

    def __init__(self) -> None:
        self._pixels: Int[np.ndarray, "K K"] | None = None
        self._wrong: dict[ErrorKind, Int[np.ndarray, "K K"]] = {}

    def __call__(self, sample: Mapping, data: EvaluatedData) -> None:
        """Add one sample."""
        num_classes = len(data.classes)
        maps = semantic_maps(sample, where=str(sample.get("img_path")))
        prediction, truth = (labels.cpu().numpy() for labels in maps)
        if self._pixels is None:
            self._pixels = np.zeros((num_classes, num_classes), dtype=np.int64)
            self._wrong = {kind: np.zeros_like(self._pixels) for kind in _KINDS}
        valid = truth != IGNORE_INDEX
        np.add.at(self._pixels, (truth[valid], prediction[valid]), 1)
        for kind, inside in pixel_errors(prediction, truth).items():
            np.add.at(self._wrong[kind], (truth[inside], prediction[inside]), 1)

    def table(self) -> ErrorTable:
        """All samples so far."""
        assert self._pixels is not None
        rows = [
            ErrorRow(kind, int(wrong.sum()), _mean_iou(self._pixels - wrong + np.diag(wrong.sum(1))))
            for kind, wrong in self._wrong.items()
        ]
        return ErrorTable("mIoU", _mean_iou(self._pixels), "pixels", rows)


def pixel_errors(
    prediction: Int[np.ndarray, "H W"], truth: Int[np.ndarray, "H W"]
) -> dict[ErrorKind, Bool[np.ndarray, "H W"]]:
    """Where the wrong pixels of each kind are; void (255) in the truth is neither right nor wrong."""
    valid = truth != IGNORE_INDEX
    wrong = valid & (prediction != truth)
    width = boundary_width((truth.shape[0], truth.shape[1]))
    around = np.pad(truth, width, mode="edge")  # the image's own border is none between labels
    near = boundary_pixels(around, width)[width:-width, width:-width]
    is_missed = ~np.isin(truth, prediction[valid])
    is_void = ~np.isin(prediction, truth[valid])
    kinds: dict[ErrorKind, Bool[np.ndarray, "H W"]] = {}
    for kind, fits in (("boundary", near), ("missed", is_missed), ("void", is_void), ("class", valid)):
        kinds[kind] = wrong & fits  # type: ignore[index]
        wrong = wrong & ~fits
    return kinds


def _mean_iou(pixels: Int[np.ndarray, "K K"]) -> float:
    return float(np.nanmean(class_ious(pixels)))
