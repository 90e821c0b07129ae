"""Losses, and the criterion that applies them to matched pairs."""

from mmseg_m2f.models.losses.criterion import MaskCriterion
from mmseg_m2f.models.losses.distillation import EntropyAwareDistillLoss
from mmseg_m2f.models.losses.diversity import SpatialDiversityLoss
from mmseg_m2f.models.losses.edge_loss import TokenEdgeLoss
from mmseg_m2f.models.losses.losses import (
    BoxGIoULoss,
    BoxL1Loss,
    ClassLoss,
    ContentOrthogonalityLoss,
    MaskBCELoss,
    MaskDiceLoss,
    MaskFocalLoss,
    QueryOrthogonalityLoss,
)
from mmseg_m2f.models.losses.task_criterion import TaskCriterion

__all__ = [
    "BoxGIoULoss",
    "BoxL1Loss",
    "ClassLoss",
    "ContentOrthogonalityLoss",
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
