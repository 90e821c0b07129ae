"""Mask2Former's transformer decoder with masked attention (arXiv 2112.01527, section 3.2).

Deviations, equal up to float rounding: the attention mask is the product of the mask embeddings with mask features
resized once per level (resizing commutes with the product) instead of resized mask logits, and all heads share it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from mmengine.model import caffe2_xavier_init
from torch import Tensor, nn

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.layers.position_encoding import sine_position_encoding
from mmseg_m2f.layers.transformer import MaskedDecoderLayer, attend_inside, flatten_maps
from mmseg_m2f.models.query_decoders.query_mlp import QueryMLP
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import MaskPrediction, PixelFeatures, PixelSpec


class DecoderLayers(nn.Module):
    """The decoder layers and the norm that all prediction heads share."""

    def __init__(self, channels: int, *, num_layers: int, num_heads: int, feedforward_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MaskedDecoderLayer(channels, num_heads=num_heads, feedforward_channels=feedforward_channels)
            for _ in range(num_layers)
        )
        self.post_norm = nn.LayerNorm(channels)


@MODELS.register_module()
class MaskedAttentionDecoder(nn.Module):
    """Learnt queries that attend only inside the mask predicted before each layer.

    `X_l = softmax(A_{l-1} + Q_l K_lᵀ) V_l + X_{l-1}`, where A is 0 inside the mask of the previous prediction and
    -∞ outside, or 0 everywhere where that mask is empty. Gives `num_layers + 1` predictions; the first is that of the
    learnt queries before any layer.

    Args:
        num_classes: K; one more class output means "no object".
        pixel_spec: channels of the pixel decoder's maps; the head passes it.
        num_queries: Q, the most segments an image can have.
        channels: width of the queries.
        num_layers: decoder layers; layer i attends to level i modulo the number of levels.
    """

    def __init__(
        self,
        num_classes: int,
        pixel_spec: PixelSpec,
        *,
        num_queries: int = 100,
        channels: int = 256,
        num_layers: int = 9,
        num_heads: int = 8,
        feedforward_channels: int = 2048,
    ) -> None:
        super().__init__()
        self.query_feat = nn.Embedding(num_queries, channels)
        self.query_embed = nn.Embedding(num_queries, channels)
        self.level_embed = nn.Embedding(len(pixel_spec.levels), channels)
        self.decoder_input_projs = nn.ModuleList(
            nn.Identity() if c == channels else nn.Conv2d(c, channels, 1) for c in pixel_spec.levels
        )
        for projection in self.decoder_input_projs:
            if isinstance(projection, nn.Conv2d):
                caffe2_xavier_init(projection)
        self.transformer_decoder = DecoderLayers(
            channels, num_layers=num_layers, num_heads=num_heads, feedforward_channels=feedforward_channels
        )
        self.cls_embed = nn.Linear(channels, num_classes + 1)
        self.mask_embed = QueryMLP(channels, pixel_spec.mask_features)

    def forward(
        self,
        features: PixelFeatures,
        *,
        last_only: bool = False,
        num_layers: int | None = None,
        num_queries: int | None = None,
    ) -> list[MaskPrediction]:
        """Predictions before the first layer and after every layer, or the last one only.

        Args:
            num_layers: run the first layers only.
            num_queries: take those queries only that are the surest of a class before any layer, whatever the image.
        """
        sizes = [(x.shape[-2], x.shape[-1]) for x in features.levels]
        values, keys = self._values_and_keys(features.levels, sizes)
        small_features = self._mask_features_per_level(features.mask_features, sizes)
        kept = slice(None) if num_queries is None else self._surest_queries(num_queries)
        queries = self.query_feat.weight[kept].expand(features.mask_features.shape[0], -1, -1)
        position = self.query_embed.weight[kept]

        predictions = []
        layers = self.transformer_decoder.layers[:num_layers]
        for index in range(len(layers) + 1):
            normed = self.transformer_decoder.post_norm(queries)
            embeddings = self.mask_embed(normed)
            if index == len(layers) or not last_only:
                predictions.append(MaskPrediction(self.cls_embed(normed), embeddings, features.mask_features))
            if index < len(layers):
                level = index % len(sizes)
                may_attend = self._may_attend(embeddings, small_features[level])
                queries = layers[index](queries, position, keys[level], values[level], may_attend)
        return predictions

    @torch.no_grad()
    def _surest_queries(self, count: int) -> Int[Tensor, "_"]:
        """Numbers of the learnt queries with the highest probability of any class, in ascending order."""
        logits = self.cls_embed(self.transformer_decoder.post_norm(self.query_feat.weight))
        return logits.softmax(-1)[:, :-1].amax(-1).topk(count).indices.sort().values

    def _values_and_keys(
        self, levels: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        values, keys = [], []
        for level, size in enumerate(sizes):
            projected = self.decoder_input_projs[level](levels[level])
            value = flatten_maps([projected]) + self.level_embed.weight[level]
            values.append(value)
            keys.append(value + sine_position_encoding(size, value.shape[-1], value).flatten(1).T)
        return values, keys

    @staticmethod
    @torch.no_grad()
    def _mask_features_per_level(
        mask_features: Float[Tensor, "B C H W"], sizes: Sequence[tuple[int, int]]
    ) -> list[Float[Tensor, "B C _"]]:
        return [resize_maps(mask_features, size).flatten(2) for size in sizes]

    @staticmethod
    @torch.no_grad()
    def _may_attend(embeddings: Float[Tensor, "B Q C"], features: Float[Tensor, "B C N"]) -> Bool[Tensor, "B Q N"]:
        return attend_inside(torch.bmm(embeddings, features))
