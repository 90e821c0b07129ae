"""Backbones, and a norm for backbones of other libraries."""

from mmseg_m2f.models.backbones.context_cluster import ContextCluster, ContextClusterBlock
from mmseg_m2f.models.backbones.frozen_norm import FrozenBN
from mmseg_m2f.models.backbones.shrunk_vit import ShrunkVisionTransformer
from mmseg_m2f.models.backbones.timm_plain_vit import TimmPlainViT
from mmseg_m2f.models.backbones.timm_token_stream import TimmTokenStream
from mmseg_m2f.models.backbones.vit_adapter import ViTAdapter

__all__ = [
    "ContextCluster",
    "ContextClusterBlock",
    "FrozenBN",
    "ShrunkVisionTransformer",
    "TimmPlainViT",
    "TimmTokenStream",
    "ViTAdapter",
]
