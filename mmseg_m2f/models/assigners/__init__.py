"""Which query is trained on which segment."""

from mmseg_m2f.models.assigners.fixed import FixedAssigner
from mmseg_m2f.models.assigners.hungarian import HungarianAssigner
from mmseg_m2f.models.assigners.match_costs import (
    BoxGIoUCost,
    BoxL1Cost,
    ClassCost,
    ClassFocalCost,
    MaskBCECost,
    MaskDiceCost,
    MaskFocalCost,
)

__all__ = [
    "BoxGIoUCost",
    "BoxL1Cost",
    "ClassCost",
    "ClassFocalCost",
    "FixedAssigner",
    "HungarianAssigner",
    "MaskBCECost",
    "MaskDiceCost",
    "MaskFocalCost",
]
