"""Registered losses, thin over `core.losses`, and the criterion that applies them to matched pairs."""

from mmseg_m2f.models.losses.criterion import MaskCriterion
from mmseg_m2f.models.losses.mask_losses import ClassLoss, MaskBCELoss, MaskDiceLoss, MaskFocalLoss
from mmseg_m2f.models.losses.sampling import FullMaskSampling, PointSampling

__all__ = [
    "ClassLoss",
    "FullMaskSampling",
    "MaskBCELoss",
    "MaskCriterion",
    "MaskDiceLoss",
    "MaskFocalLoss",
    "PointSampling",
]
