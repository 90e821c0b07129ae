"""At which points masks are compared, in matching and in the losses."""

from mmseg_m2f.models.sampling.full_masks import FullMaskSampling
from mmseg_m2f.models.sampling.random_points import PointSampling

__all__ = ["FullMaskSampling", "PointSampling"]
