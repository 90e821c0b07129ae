"""MaskFormer's transformer decoder (arXiv 2107.06278, section 3.3), which is DETR's (2005.12872, section 3.2).

Deviations: padding is treated as image, as in the official release (mmdet masks it).
"""

from jaxtyping import Float
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn

from mmseg_m2f.layers.position_encoding import sine_position_encoding
from mmseg_m2f.layers.transformer import DecoderLayer, flatten_maps
from mmseg_m2f.models.query_decoders.mask_mlp import MaskMLP
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import MaskPrediction, PixelFeatures, PixelSpec


class CrossAttentionLayers(nn.Module):
    """The decoder layers and the norm before the prediction heads, which all layers share."""

    def __init__(
        self, channels: int, *, num_layers: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(channels, num_heads=num_heads, feedforward_channels=feedforward_channels, dropout=dropout)
            for _ in range(num_layers)
        )
        self.post_norm = nn.LayerNorm(channels)


@MODELS.register_module()
class CrossAttentionDecoder(nn.Module):
    """Queries that look at the whole memory in every layer; one prediction per layer.

    Queries start as zeros, only their positions are learnt.

    Args:
        num_classes: K; one more class output stands for "no object".
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
        self.transformer_decoder = CrossAttentionLayers(
            channels,
            num_layers=num_layers,
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=dropout,
        )
        self.cls_embed = nn.Linear(channels, num_classes + 1)
        self.mask_embed = MaskMLP(channels, pixel_spec.mask_features)

    def forward(self, features: PixelFeatures, *, last_only: bool = False) -> list[MaskPrediction]:
        """Predictions after every layer, or after the last one only."""
        memory = self.decoder_input_proj(features.memory)
        size = (memory.shape[-2], memory.shape[-1])
        value = flatten_maps([memory])
        key = value + sine_position_encoding(size, memory.shape[1], memory).flatten(1).T
        position = self.query_embed.weight
        queries = position.new_zeros(len(memory), *position.shape)
        predictions = []
        layers = self.transformer_decoder.layers
        for index, layer in enumerate(layers):
            queries = layer(queries, position, key, value)
            if index == len(layers) - 1 or not last_only:
                predictions.append(self._predict(queries, features.mask_features))
        return predictions

    def _predict(self, queries: Float[Tensor, "B Q C"], mask_features: Float[Tensor, "B C1 H W"]) -> MaskPrediction:
        normed = self.transformer_decoder.post_norm(queries)
        return MaskPrediction(self.cls_embed(normed), self.mask_embed(normed), mask_features)
