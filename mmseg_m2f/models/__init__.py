"""Registered parts of a model. Importing this registers all of them."""

from mmseg_m2f.models import (
    assigners,
    backbones,
    decode_heads,
    losses,
    necks,
    pixel_decoders,
    query_decoders,
    sampling,
    segmentors,
)

__all__ = [
    "assigners",
    "backbones",
    "decode_heads",
    "losses",
    "necks",
    "pixel_decoders",
    "query_decoders",
    "sampling",
    "segmentors",
]
