"""Datasets and transforms: the generated scenes, and what reading real files needs beside mmseg's readers."""

from mmseg_m2f.datasets.ignore_labels import IgnoreLabels
from mmseg_m2f.datasets.loading import CheckedLoading
from mmseg_m2f.datasets.objects import SegmentsToObjects
from mmseg_m2f.datasets.scene import Scene, Segment, draw_scene
from mmseg_m2f.datasets.shapes import GeneratedShapes

__all__ = ["CheckedLoading", "GeneratedShapes", "IgnoreLabels", "Scene", "Segment", "SegmentsToObjects", "draw_scene"]
