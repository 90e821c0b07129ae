"""From pixel features to one mask prediction per supervised layer."""

from mmseg_m2f.models.query_decoders.cross_attention import CrossAttentionDecoder
from mmseg_m2f.models.query_decoders.masked_attention import MaskedAttentionDecoder

__all__ = ["CrossAttentionDecoder", "MaskedAttentionDecoder"]
