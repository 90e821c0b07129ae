"""Metrics, registered for mmengine's evaluator."""

from mmseg_m2f.evaluation.panoptic_quality import PanopticQuality
from mmseg_m2f.evaluation.semantic_iou import SemanticIoU

__all__ = ["PanopticQuality", "SemanticIoU"]
