"""Metrics, registered for mmengine's evaluator."""

from mmseg_m2f.evaluation.mask_ap import MaskAP
from mmseg_m2f.evaluation.object_calibration import ObjectCalibration
from mmseg_m2f.evaluation.object_matching import ObjectMatching
from mmseg_m2f.evaluation.panoptic_quality import PanopticQuality
from mmseg_m2f.evaluation.pixel_calibration import PixelCalibration
from mmseg_m2f.evaluation.semantic_iou import SemanticIoU

__all__ = [
    "MaskAP",
    "ObjectCalibration",
    "ObjectMatching",
    "PanopticQuality",
    "PixelCalibration",
    "SemanticIoU",
]
