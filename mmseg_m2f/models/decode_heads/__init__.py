"""Decode heads."""

from mmseg_m2f.models.decode_heads.mask_head import MaskHead

__all__ = ["MaskHead"]
