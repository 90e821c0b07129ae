"""Which query is trained on which segment."""

from mmseg_m2f.models.assigners.fixed import FixedAssigner
from mmseg_m2f.models.assigners.hungarian import HungarianAssigner
from mmseg_m2f.models.assigners.match_costs import (
    BoxGIoUCost,
    BoxL1Cost,
    ClassCost,
    MaskBCECost,
    MaskDiceCost,
    MaskFocalCost,
)

__all__ = [
    "BoxGIoUCost",
    "BoxL1Cost",
    "ClassCost",
    "FixedAssigner",
    "HungarianAssigner",
    "MaskBCECost",
    "MaskDiceCost",
    "MaskFocalCost",
]
