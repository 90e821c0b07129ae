"""Thin shells that put a `MaskHead` into a framework, and the visualizers of their results."""

from mmseg_m2f import compat
from mmseg_m2f.models.segmentors.band_seg_preprocessor import BandSegPreProcessor
from mmseg_m2f.models.segmentors.mask_segmentor import MaskSegmentor
from mmseg_m2f.models.segmentors.semantic_tta import SemanticTTA
from mmseg_m2f.models.segmentors.semantic_visualizer import SemanticVisualizer

__all__ = ["BandSegPreProcessor", "MaskSegmentor", "SemanticTTA", "SemanticVisualizer"]

if compat.is_installed("mmdet"):
    from mmseg_m2f.models.segmentors.band_det_preprocessor import BandDetPreprocessor
    from mmseg_m2f.models.segmentors.mask_detector import MaskDetector
    from mmseg_m2f.models.segmentors.object_visualizer import ObjectVisualizer
    from mmseg_m2f.models.segmentors.query_tta import QueryTTA

    __all__ += ["BandDetPreprocessor", "MaskDetector", "ObjectVisualizer", "QueryTTA"]
