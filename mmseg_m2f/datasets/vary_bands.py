"""Photometric augmentation for images of any number of channels and any range of values."""

import numpy as np
from mmcv.transforms import BaseTransform

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TRANSFORMS


@TRANSFORMS.register_module()
class VaryBands(BaseTransform):
    """Changes contrast, brightness and the balance of the channels of an image H W C.

    Each of the three happens in every other image. With m and s, mean and standard deviation of a channel in this
    image: `(x - m) · contrast · gain + m + shift · s`, where contrast and shift are drawn for the image and the gain
    for each channel. Nothing depends on the unit of the values: the result for a·x + b is a times that for x, plus b.

    Args:
        contrast: Largest relative change of contrast: drawn from 1 - contrast … 1 + contrast.
        brightness: Largest shift, in standard deviations of each channel.
        balance: Largest relative change of a channel's contrast against the others.

    Raises:
        ValueError: A change outside 0…1, or a brightness below 0.
    """

    def __init__(self, *, contrast: float = 0.5, brightness: float = 0.5, balance: float = 0.2) -> None:
        if not (0 <= contrast < 1 and 0 <= balance < 1 and brightness >= 0):
            raise InvalidValueError(
                f"VaryBands: expected contrast and balance of at least 0 and below 1 and brightness of at least 0, got "
                f"contrast={contrast}, brightness={brightness}, balance={balance}."
            )
        self.contrast, self.brightness, self.balance = contrast, brightness, balance

    def transform(self, results: dict) -> dict:
        """`results` with the image changed (float32)."""
        image = np.asarray(results["img"], dtype=np.float32)
        mean = image.mean((0, 1), dtype=np.float64)
        std = image.std((0, 1), dtype=np.float64)
        draw = np.random  # what OpenMMLab's transforms draw from, set from the data's seed
        gain = np.ones(image.shape[2])
        if draw.randint(2):
            gain *= draw.uniform(1 - self.contrast, 1 + self.contrast)
        if draw.randint(2):
            gain *= draw.uniform(1 - self.balance, 1 + self.balance, size=len(gain))
        shift = draw.uniform(-self.brightness, self.brightness) if draw.randint(2) else 0.0
        offset = mean * (1 - gain) + shift * std
        results["img"] = image * gain.astype(np.float32) + offset.astype(np.float32)
        return results
