"""SegViT's decoder (arXiv 2210.05844, section 3): the attention scores of a class's query are the mask of the class.

With M heads of C/M channels, the mask logits of query q are `Σ_s mean_m q_sm · k_sm / √(C/M)` over the stages s:
attention scores before the softmax. As sums of inner products they are one inner product of queries and keys, both
concatenated over the stages: mask embeddings and mask features as in other decoders.

Deviation, where the maps differ in size: keys are resized to the finest map, once. Resizing commutes with the product;
summing scores at one resolution after the other, as published, would resize those of coarse maps several times.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.scoring_attention import AttentionToMaskLayer, init_linears, keys_as_map, project_tokens
from mmseg_m2f.layers.transformer import flatten_maps
from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, MaskPrediction


class Stage(nn.Module):
    """Projects one map; the queries attend to it in every layer."""

    def __init__(self, in_channels: int, channels: int, *, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.input_proj = project_tokens(in_channels, channels)
        self.layers = nn.ModuleList(
            AttentionToMaskLayer(channels, num_heads=num_heads, dropout=dropout) for _ in range(num_layers)
        )

    def forward(
        self, queries: Float[Tensor, "B Q C"], x: Float[Tensor, "B D H W"]
    ) -> tuple[Float[Tensor, "B Q C"], Float[Tensor, "B Q C"], Float[Tensor, "B C H W"]]:
        """The queries after all layers, and the factors of the last layer's scores: queries, and keys as a map."""
        tokens = self.input_proj(flatten_maps([x]))
        for layer in self.layers:
            queries, scores = layer(queries, tokens)
        return queries, scores.embeddings, keys_as_map(scores, x.shape[-2:])


@MODELS.register_module()
class AttentionToMaskDecoder(nn.Module):
    """One query per class, which attends to the backbone's maps deepest first; one prediction per map.

    A `BackboneQueryDecoder`: `MaskHead(pixel_decoder=None)`. Query k predicts class k, see `FixedAssigner`. There are
    no position encodings besides those in the maps.

    Args:
        num_classes: K, also the number of queries; one more class output means "absent".
        feature_spec: channels of the backbone's maps; the head passes it.
        channels: width of the queries; half the channels of the deepest map unless given.
        num_heads: one per 32 channels unless given.
        num_layers: layers per map.
        dropout: in attention weights, residual branches and feed-forward networks.
        cascade: sum the scores of a stage and all earlier ones; False takes those of each stage alone.
    """

    def __init__(
        self,
        num_classes: int,
        feature_spec: FeatureSpec,
        *,
        channels: int | None = None,
        num_heads: int | None = None,
        num_layers: int = 3,
        dropout: float = 0.1,
        cascade: bool = True,
    ) -> None:
        super().__init__()
        self.cascade = cascade
        channels = channels or feature_spec.channels[-1] // 2
        num_heads = num_heads or max(channels // 32, 1)
        self.query_feat = nn.Embedding(num_classes, channels)
        self.stages = nn.ModuleList(
            Stage(c, channels, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
            for c in reversed(feature_spec.channels)
        )
        self.cls_embed = nn.Linear(channels, num_classes + 1)
        init_linears(self)

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]], *, last_only: bool = False) -> list[MaskPrediction]:
        """Predictions after every stage, or after the last one only; maps are given fine to coarse.

        Raises:
            ValueError: the backbone dropped tokens.
        """
        if isinstance(features, PartialMaps):
            raise InvalidValueError(
                "AttentionToMaskDecoder: expected maps with a token in every cell, got a backbone that keeps edges "
                "(backbone.shrink.sampler='edge'). Take QueryUpsamplingDecoder, or backbone.shrink.sampler='grid'."
            )
        size = (features[0].shape[-2], features[0].shape[-1])
        queries = self.query_feat.weight.expand(features[0].shape[0], -1, -1)
        states, embeddings, keys = [], [], []
        for x, stage in zip(reversed(features), self.stages, strict=True):
            queries, stage_embeddings, stage_keys = stage(queries, x)
            states.append(queries)
            embeddings.append(stage_embeddings)
            keys.append(resize_maps(stage_keys, size))

        mask_features, joined = torch.cat(keys, 1), torch.cat(embeddings, 2)
        predictions = []
        for index, state in enumerate(states):
            if index == len(states) - 1 or not last_only:
                # Zeros for the other stages, so that all predictions share their mask features.
                earlier = 0 if self.cascade else sum(part.shape[-1] for part in embeddings[:index])
                later = sum(part.shape[-1] for part in embeddings[index + 1 :])
                counted = F.pad(joined[..., earlier : joined.shape[-1] - later], (earlier, later))
                predictions.append(MaskPrediction(self.cls_embed(state), counted, mask_features))
        return predictions
