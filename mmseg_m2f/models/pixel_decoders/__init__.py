"""From backbone maps to mask features and the levels that queries attend to."""

from mmseg_m2f.models.pixel_decoders.deformable import DeformablePixelDecoder
from mmseg_m2f.models.pixel_decoders.detr_pixel_decoder import DetrPixelDecoder
from mmseg_m2f.models.pixel_decoders.fpn import FPNPixelDecoder
from mmseg_m2f.models.pixel_decoders.hamburger import HamburgerPixelDecoder
from mmseg_m2f.models.pixel_decoders.transformer_fpn import TransformerFPNPixelDecoder

__all__ = [
    "DeformablePixelDecoder",
    "DetrPixelDecoder",
    "FPNPixelDecoder",
    "HamburgerPixelDecoder",
    "TransformerFPNPixelDecoder",
]
