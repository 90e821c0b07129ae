"""Which query answers for which segment."""

from mmseg_m2f.models.assigners.hungarian import HungarianAssigner
from mmseg_m2f.models.assigners.match_costs import ClassCost, MaskBCECost, MaskDiceCost, MaskFocalCost

__all__ = ["ClassCost", "HungarianAssigner", "MaskBCECost", "MaskDiceCost", "MaskFocalCost"]
