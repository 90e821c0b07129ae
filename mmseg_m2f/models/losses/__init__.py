"""Losses, and the criterion that computes them for matched pairs."""

from mmseg_m2f.models.losses.criterion import MaskCriterion
from mmseg_m2f.models.losses.criterion_losses import (
    BoxGIoULoss,
    BoxL1Loss,
    ClassFocalLoss,
    ClassLoss,
    MaskBCELoss,
    MaskDiceLoss,
    MaskFocalLoss,
    QueryOrthogonalityLoss,
)
from mmseg_m2f.models.losses.entropy_aware_distill import EntropyAwareDistillLoss
from mmseg_m2f.models.losses.spatial_diversity import SpatialDiversityLoss
from mmseg_m2f.models.losses.task_criterion import TaskCriterion
from mmseg_m2f.models.losses.token_edge import TokenEdgeLoss

__all__ = [
    "BoxGIoULoss",
    "BoxL1Loss",
    "ClassFocalLoss",
    "ClassLoss",
    "EntropyAwareDistillLoss",
    "MaskBCELoss",
    "MaskCriterion",
    "MaskDiceLoss",
    "MaskFocalLoss",
    "QueryOrthogonalityLoss",
    "SpatialDiversityLoss",
    "TaskCriterion",
    "TokenEdgeLoss",
]
