"""Registered parts of a model, and addresses of weights in packages. Importing this registers all of them."""

from mmseg_m2f.checkpoints import package_weights
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
    "package_weights",
    "pixel_decoders",
    "query_decoders",
    "sampling",
    "segmentors",
]
