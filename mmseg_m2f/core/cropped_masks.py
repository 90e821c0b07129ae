"""Masks of one image, each cut to its bounding box."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class CroppedMasks:
    """N masks, each cut to the rows and columns it spans; they may overlap.

    Most objects are small, so hundreds of them in a large image take little memory and time.

    Attributes:
        size: height and width of the image.
        boxes: top, left, bottom and right of each mask in pixels, the last two exclusive; zeros for an empty mask.
        crops: the part of each mask within its box.
    """

    size: tuple[int, int]
    boxes: Int[np.ndarray, "N 4"]
    crops: tuple[Bool[np.ndarray, "_ _"], ...]

    def __len__(self) -> int:
        return len(self.crops)

    def select(self, indices: Int[np.ndarray, "_"]) -> "CroppedMasks":
        """Those masks, in the order of the indices."""
        return CroppedMasks(self.size, self.boxes[indices], tuple(self.crops[i] for i in indices))

    def areas(self) -> Int[np.ndarray, "N"]:
        """Number of pixels."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], dtype=np.int64)

    def shared_pixels(self, other: "CroppedMasks", wanted: Bool[np.ndarray, "N G"]) -> Int[np.ndarray, "N G"]:
        """How many pixels each mask shares with each of another set, 0 for pairs that are not wanted."""
        starts = np.maximum(self.boxes[:, None, :2], other.boxes[:, :2])
        stops = np.minimum(self.boxes[:, None, 2:], other.boxes[:, 2:])
        shared = np.zeros(wanted.shape, dtype=np.int64)
        for row, column in np.argwhere(wanted & (starts < stops).all(-1)):
            parts = (
                masks.crops[index][tuple(map(slice, start, stop))]
                for masks, index in ((self, row), (other, column))
                for start, stop in [np.array([starts[row, column], stops[row, column]]) - masks.boxes[index, :2]]
            )
            shared[row, column] = np.count_nonzero(np.logical_and(*parts))
        return shared


def crop_masks(masks: Bool[np.ndarray, "N H W"]) -> CroppedMasks:
    """Copies what is needed: the masks may be freed."""
    boxes = np.zeros((len(masks), 4), dtype=np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        rows = np.flatnonzero(mask.any(1))
        if len(rows):
            columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
            box[:] = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    crops = (mask[t:b, x:r].copy() for mask, (t, x, b, r) in zip(masks, boxes, strict=True))
    return CroppedMasks((masks.shape[1], masks.shape[2]), boxes, tuple(crops))
