"""Boundary regions of masks ("Boundary IoU", arXiv 2103.16562, section 4).

The region of a mask holds its pixels from which a step of `width` pixels, along both axes at once, can leave the
mask or the image: the mask minus the mask eroded by a square.
"""

import math

import numpy as np
from jaxtyping import Bool, Integer
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from mmseg_m2f.core.cropped_masks import CroppedMasks


def boundary_width(size: tuple[int, int]) -> int:
    """The paper's width in pixels: 2 % of the image's diagonal, rounded, at least 1."""
    return max(1, round(0.02 * math.hypot(*size)))


def boundary_pixels(label_map: Integer[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """The boundary regions of all labels at once: each pixel may lie in the region of its own label alone."""
    labels = label_map.astype(np.int32)
    outside = int(labels.min(initial=0)) - 1  # a value of its own: beyond the image begins another label
    lowest = highest = labels
    for axis in (0, 1):
        lowest = minimum_filter1d(lowest, 2 * width + 1, axis, mode="constant", cval=outside)
        highest = maximum_filter1d(highest, 2 * width + 1, axis, mode="constant", cval=outside)
    return lowest != highest


def boundary_regions(masks: CroppedMasks) -> CroppedMasks:
    """The boundary region of each mask, as wide as suits the image; its box stays that of the mask."""
    width = boundary_width(masks.size)
    # What lies around a crop is outside the mask, as is what lies around the image.
    crops = (crop & boundary_pixels(crop.view(np.uint8), width) for crop in masks.crops)
    return CroppedMasks(masks.size, masks.boxes, tuple(crops))
