"""A random crop that is magnified: for objects of a few pixels in images of any size."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MagnifiedCrop(BaseTransform):
    """Cuts a random part out of an image with objects and magnifies it to at most `crop_size`.

    The part is 1 / factor as wide and high, so that a large image is never magnified as a whole. An image below the
    size of the part stays whole. Objects keep what of them lies in the crop; a crop without objects is kept.

    Args:
        crop_size: Largest height and width of the result, in pixels.
        factors: What sides are multiplied by; one is drawn for each image, all with the same probability.

    Raises:
        ValueError: A factor that is not positive, or that leaves less than a pixel of the crop.
    """

    def __init__(self, *, crop_size: Sequence[int], factors: Sequence[float]) -> None:
        height, width = crop_size
        if not factors or not all(0 < factor <= min(crop_size) for factor in factors):
            raise InvalidValueError(
                f"MagnifiedCrop: factors={list(factors)} with crop_size={tuple(crop_size)}; expected at least one, "
                f"above 0 and at most {min(crop_size)}. For twice the size give factors=[2.0]."
            )
        self._steps = [
            (
                # Rounded down: magnified, the part is not larger than the crop. mmdet's size is (width, height).
                _build(
                    "mmdet.RandomCrop",
                    crop_size=(int(width / factor), int(height / factor)),
                    recompute_bbox=True,
                    allow_negative_crop=True,
                ),
                _build("mmdet.Resize", scale_factor=factor, keep_ratio=True),
            )
            for factor in factors
        ]

    def transform(self, results: dict) -> dict:
        """Draws a factor and a place, and changes image, boxes and masks."""
        crop, resize = self._steps[np.random.randint(len(self._steps))]  # noqa: NPY002  (what OpenMMLab's draw from)
        return resize(crop(results))


def _build(name: str, **arguments: object) -> BaseTransform:
    return ROOT_TRANSFORMS.build(dict(type=name, **arguments))
