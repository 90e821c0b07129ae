"""Registered losses, thin over `core.losses`, and the criterion that applies them to matched pairs."""

from mmseg_m2f.models.losses.criterion import MaskCriterion
from mmseg_m2f.models.losses.mask_losses import ClassLoss, MaskBCELoss, MaskDiceLoss

__all__ = ["ClassLoss", "MaskBCELoss", "MaskCriterion", "MaskDiceLoss"]
