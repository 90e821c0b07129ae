"""Decode heads. The per-pixel ones work in mmseg's own segmentors."""

from mmseg_m2f.models.decode_heads.context_aware import ContextAwareHead
from mmseg_m2f.models.decode_heads.explicit_class import ExplicitClassHead
from mmseg_m2f.models.decode_heads.mask_head import MaskHead
from mmseg_m2f.models.decode_heads.segnext_head import SegNeXtHead

__all__ = ["ContextAwareHead", "ExplicitClassHead", "MaskHead", "SegNeXtHead"]
