"""From pixel features to one mask prediction per supervised layer."""

from mmseg_m2f.models.query_decoders.masked_attention import MaskedAttentionDecoder

__all__ = ["MaskedAttentionDecoder"]
