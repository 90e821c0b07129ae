"""Modules between a backbone and a head."""

from mmseg_m2f.models.necks.feature_reconstruction import FeatureReconstruction

__all__ = ["FeatureReconstruction"]
