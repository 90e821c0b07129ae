"""Label files that mark void by another number than 255."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmseg_m2f.registry import TRANSFORMS


@TRANSFORMS.register_module()
class IgnoreLabels(BaseTransform):
    """Replaces label values that mean "no class" by `ignore_index`, which losses and metrics leave out.

    Belongs right after the loading of the annotation, before the labels are checked against the classes.

    Args:
        labels: Values in the label files that belong to no class.
        ignore_index: What replaces them.
    """

    def __init__(self, labels: Sequence[int], ignore_index: int = 255) -> None:
        self.labels = tuple(labels)
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Replaces the values in every label map of the sample."""
        for field in results["seg_fields"]:
            labels = results[field]
            results[field] = np.where(np.isin(labels, self.labels), labels.dtype.type(self.ignore_index), labels)
        return results
