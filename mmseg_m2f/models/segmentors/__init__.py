"""Thin shells that put a `MaskHead` into a framework. The only place that imports mmseg or mmdet."""

from mmseg_m2f.models.segmentors.mask_segmentor import MaskSegmentor
from mmseg_m2f.models.segmentors.semantic_tta import SemanticTTA

__all__ = ["MaskSegmentor", "SemanticTTA"]
