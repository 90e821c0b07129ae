"""Label and segment maps as images, as files store them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.predictions.palettes import Palette
from mmseg_m2f.structures import IGNORE_INDEX


def label_image(labels: NDArray[np.integer], palette: Palette) -> Image.Image:
    """An image whose pixel values are the class indices, with a palette; 16-bit grey beyond 256 classes.

    Raises:
        ValueError: A label outside 0...65535.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > 65535:
        raise InvalidValueError(
            f"label_image: expected labels in 0...65535, got {low}...{high}. Map void to {IGNORE_INDEX}."
        )
    if high > 255 or len(palette) > 256:
        return Image.fromarray(labels.astype(np.uint16))
    picture = Image.fromarray(labels.astype(np.uint8)).convert("P")
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    picture.putpalette(colours.tobytes())
    return picture


def segment_image(segments: NDArray[np.integer]) -> Image.Image:
    """A colour image that holds ids 0...256³-1 as COCO's panoptic files do: R + 256 · G + 256² · B."""
    return Image.fromarray(np.stack([segments >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8))
