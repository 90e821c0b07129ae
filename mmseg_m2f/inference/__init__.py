"""Prediction on images outside any dataset."""

from mmseg_m2f.inference.predictor import Predictor

__all__ = ["Predictor"]
