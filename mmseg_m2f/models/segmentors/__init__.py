"""Thin shells that put a `MaskHead` into a framework."""

from mmseg_m2f import compat
from mmseg_m2f.models.segmentors.mask_segmentor import MaskSegmentor
from mmseg_m2f.models.segmentors.semantic_tta import SemanticTTA

__all__ = ["MaskSegmentor", "SemanticTTA"]

if compat.is_installed("mmdet"):
    from mmseg_m2f.models.segmentors.mask_detector import MaskDetector
    from mmseg_m2f.models.segmentors.query_tta import QueryTTA

    __all__ += ["MaskDetector", "QueryTTA"]
