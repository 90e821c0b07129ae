"""From pixel features to one prediction per supervised layer."""

from mmseg_m2f.models.query_decoders.box import BoxDecoder
from mmseg_m2f.models.query_decoders.cross_attention import CrossAttentionDecoder
from mmseg_m2f.models.query_decoders.detr_mask_head import DetrMaskHead
from mmseg_m2f.models.query_decoders.masked_attention import MaskedAttentionDecoder

__all__ = ["BoxDecoder", "CrossAttentionDecoder", "DetrMaskHead", "MaskedAttentionDecoder"]
