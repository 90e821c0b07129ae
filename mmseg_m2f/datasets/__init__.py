"""Datasets and transforms: the generated scenes, COCO's formats, and what reading real files needs."""

from mmseg_m2f.datasets.checked_loading import CheckedLoading
from mmseg_m2f.datasets.coco_instance import CocoInstance
from mmseg_m2f.datasets.coco_panoptic import CocoPanoptic
from mmseg_m2f.datasets.compact_segments import CompactSegments
from mmseg_m2f.datasets.describe_objects import DescribeObjects
from mmseg_m2f.datasets.ignore_labels import IgnoreLabels
from mmseg_m2f.datasets.load_bands import LoadBands
from mmseg_m2f.datasets.load_label_map import LoadLabelMap
from mmseg_m2f.datasets.magnified_crop import MagnifiedCrop
from mmseg_m2f.datasets.present_classes import ListClasses
from mmseg_m2f.datasets.scene import Scene, draw_scene
from mmseg_m2f.datasets.segment_conversion import ObjectsToSegments, SegmentsToLabels, SegmentsToObjects
from mmseg_m2f.datasets.segment_files import LoadCityscapesSegments, LoadPanoptic
from mmseg_m2f.datasets.segments import Segment
from mmseg_m2f.datasets.shapes import GeneratedShapes
from mmseg_m2f.datasets.vary_bands import VaryBands

__all__ = [
    "CheckedLoading",
    "CocoInstance",
    "CocoPanoptic",
    "CompactSegments",
    "DescribeObjects",
    "GeneratedShapes",
    "IgnoreLabels",
    "ListClasses",
    "LoadBands",
    "LoadCityscapesSegments",
    "LoadLabelMap",
    "LoadPanoptic",
    "MagnifiedCrop",
    "ObjectsToSegments",
    "Scene",
    "Segment",
    "SegmentsToLabels",
    "SegmentsToObjects",
    "VaryBands",
    "draw_scene",
]
