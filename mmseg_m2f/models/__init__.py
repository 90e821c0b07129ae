"""Registered parts of a model. Importing this registers all of them."""

from mmseg_m2f.models import assigners, decode_heads, losses, pixel_decoders, query_decoders, segmentors

__all__ = ["assigners", "decode_heads", "losses", "pixel_decoders", "query_decoders", "segmentors"]
