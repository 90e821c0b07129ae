"""Losses, and the criterion that applies them to matched pairs."""

from mmseg_m2f.models.losses.criterion import MaskCriterion
from mmseg_m2f.models.losses.losses import (
    BoxGIoULoss,
    BoxL1Loss,
    ClassLoss,
    MaskBCELoss,
    MaskDiceLoss,
    MaskFocalLoss,
)
from mmseg_m2f.models.losses.sampling import FullMaskSampling, PointSampling

__all__ = [
    "BoxGIoULoss",
    "BoxL1Loss",
    "ClassLoss",
    "FullMaskSampling",
    "MaskBCELoss",
    "MaskCriterion",
    "MaskDiceLoss",
    "MaskFocalLoss",
    "PointSampling",
]
