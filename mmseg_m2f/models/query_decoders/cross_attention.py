"""MaskFormer's transformer decoder (arXiv 2107.06278, section 3.3), which is DETR's (2005.12872, section 3.2).

Padding is masked where `PixelFeatures.valid` is given, as in mmdet and DETR; the authors' release has no padding masks,
which is equal for single images.
"""

from mmengine.model import caffe2_xavier_init
from torch import nn

from mmseg_m2f.layers.transformer import Decoder
from mmseg_m2f.models.query_decoders.query_mlp import QueryMLP
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import MaskPrediction, PixelFeatures, PixelSpec


@MODELS.register_module()
class CrossAttentionDecoder(nn.Module):
    """Queries that attend to the whole memory in every layer; one prediction per layer.

    Queries start as zeros, only their positions are learnt.

    Args:
        num_classes: K; one more class output means "no object".
        pixel_spec: channels of the pixel decoder's maps; the head passes it.
        num_queries: Q, the most segments an image can have.
        channels: width of the queries.
        dropout: in attention weights, residual branches and feed-forward networks.
        enforce_projection: project the memory even where it has the queries' width.
    """

    def __init__(
        self,
        num_classes: int,
        pixel_spec: PixelSpec,
        *,
        num_queries: int = 100,
        channels: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        enforce_projection: bool = False,
    ) -> None:
        super().__init__()
        self.query_embed = nn.Embedding(num_queries, channels)
        self.decoder_input_proj: nn.Module = nn.Identity()
        if enforce_projection or pixel_spec.memory != channels:
            self.decoder_input_proj = nn.Conv2d(pixel_spec.memory, channels, 1)
            caffe2_xavier_init(self.decoder_input_proj)
        self.transformer_decoder = Decoder(
            channels,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.cls_embed = nn.Linear(channels, num_classes + 1)
        self.mask_embed = QueryMLP(channels, pixel_spec.mask_features)

    def forward(
        self, features: PixelFeatures, *, last_only: bool = False, num_layers: int | None = None
    ) -> list[MaskPrediction]:
        """Predictions after every layer, or after the last one only; of the first `num_layers`."""
        memory = self.decoder_input_proj(features.memory)
        states = self.transformer_decoder(
            self.query_embed.weight, memory, features.valid, last_only=last_only, num_layers=num_layers
        )
        return [MaskPrediction(self.cls_embed(x), self.mask_embed(x), features.mask_features) for x in states]
