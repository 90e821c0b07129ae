"""Modules between a backbone and a head."""

from mmseg_m2f.models.necks.feature_reconstruction import FeatureReconstruction
from mmseg_m2f.models.necks.frozen_encoder_blocks import FrozenEncoderBlocks
from mmseg_m2f.models.necks.resized_pyramid import ResizedPyramid
from mmseg_m2f.models.necks.simple_pyramid import SimplePyramid

__all__ = ["FeatureReconstruction", "FrozenEncoderBlocks", "ResizedPyramid", "SimplePyramid"]
