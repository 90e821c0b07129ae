"""Results for one image as numpy arrays."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["panoptic", "instances", "semantic"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Objects(NamedTuple):
    """N objects of one image, the highest score first."""

    labels: NDArray[np.int64]
    """N class indices."""
    scores: NDArray[np.float32]
    """N numbers in [0, 1]; all 1 for an annotation."""
    boxes_px: NDArray[np.float32]
    """N 4: x1 y1 x2 y2 in pixels; the last column and row of a mask lie just inside x2 and y2."""
    masks: NDArray[np.bool_] | None = None
    """N H W; None where there are boxes alone."""
    confidences: NDArray[np.float32] | None = None
    """N probabilities of being right; None without `test_cfg.score_temperature`."""


class ImageResult(NamedTuple):
    """What a model predicts for one image, or its annotation says; None where there is no such result."""

    size: tuple[int, int]
    """Height and width of the image, in whose pixels everything else is given."""
    semantic: NDArray[np.int64] | None = None
    """H W class indices, 255 where the class is not known."""
    panoptic: NDArray[np.int64] | None = None
    """H W, class + 1000 · instance number (0 for stuff); K where nothing was recognised."""
    instances: Objects | None = None
    confidence: NDArray[np.float32] | None = None
    """H W: the probability of the class in `semantic`; None without `test_cfg.temperature`."""
    unknown: NDArray[np.float32] | None = None
    """H W: the probability of none of the classes; None without `test_cfg.temperature`."""

    def kinds(self) -> list[Kind]:
        """Which kinds of results there are."""
        return [kind for kind in KINDS if getattr(self, kind) is not None]


def resize_result(result: ImageResult, size: tuple[int, int]) -> ImageResult:
    """The same for a resized image: maps and masks by nearest neighbour, boxes scaled."""
    if result.size == size:
        return result
    rows = (np.arange(size[0]) * result.size[0] // size[0])[:, None]
    columns = np.arange(size[1]) * result.size[1] // size[1]
    objects = result.instances
    if objects is not None:
        scale = np.tile(np.divide(size[::-1], result.size[::-1]), 2).astype(np.float32)
        masks = None if objects.masks is None else objects.masks[:, rows, columns]
        objects = objects._replace(boxes_px=objects.boxes_px * scale, masks=masks)
    maps = {
        name: None if values is None else values[rows, columns]
        for name in ("semantic", "panoptic", "confidence", "unknown")
        for values in [getattr(result, name)]
    }
    return ImageResult(size, instances=objects, **maps)
