"""What is said about an image, by a model or by its annotation: as arrays, out of data samples, into files."""

from mmseg_m2f.predictions.prediction import KINDS, Kind, Objects, Prediction, resize_prediction
from mmseg_m2f.predictions.samples import read_prediction, read_truth

__all__ = ["KINDS", "Kind", "Objects", "Prediction", "read_prediction", "read_truth", "resize_prediction"]
