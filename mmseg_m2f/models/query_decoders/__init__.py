"""From pixel features to one prediction per supervised layer."""

from mmseg_m2f.models.query_decoders.anchor_mask import AnchorMaskDecoder
from mmseg_m2f.models.query_decoders.attention_to_mask import AttentionToMaskDecoder
from mmseg_m2f.models.query_decoders.box import BoxDecoder
from mmseg_m2f.models.query_decoders.continual import ContinualDecoder
from mmseg_m2f.models.query_decoders.cross_attention import CrossAttentionDecoder
from mmseg_m2f.models.query_decoders.detr_mask_head import DetrMaskHead
from mmseg_m2f.models.query_decoders.encoder_mask import EncoderMaskDecoder
from mmseg_m2f.models.query_decoders.masked_attention import MaskedAttentionDecoder
from mmseg_m2f.models.query_decoders.query_upsampling import QueryUpsamplingDecoder

__all__ = [
    "AnchorMaskDecoder",
    "AttentionToMaskDecoder",
    "BoxDecoder",
    "ContinualDecoder",
    "CrossAttentionDecoder",
    "DetrMaskHead",
    "EncoderMaskDecoder",
    "MaskedAttentionDecoder",
    "QueryUpsamplingDecoder",
]
