"""What is said about an image, by a model or by its annotation: as arrays, out of data samples, into files."""

from mmseg_m2f.predictions.image_result import KINDS, ImageResult, Kind, Objects, resize_result
from mmseg_m2f.predictions.sample_results import read_result, read_truth

__all__ = ["KINDS", "ImageResult", "Kind", "Objects", "read_result", "read_truth", "resize_result"]
