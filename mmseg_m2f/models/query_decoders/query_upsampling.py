"""SegViT's decoder for shrunk encoders (arXiv 2210.05844, section 3.3): learnt queries restore the fine grid.

Deviation: the cells' queries are initialised with sine position encodings, like the backbone's positions; in the
release they are random (`cell_init="normal"`), which trains much more slowly from random weights.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from mmseg_m2f.core.sizes import is_known_equal
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.position_encoding import positions_to_learn
from mmseg_m2f.layers.scoring_attention import AttentionToMaskLayer, init_linears, keys_as_map, project_tokens
from mmseg_m2f.layers.transformer import DecoderLayer, attend_valid, flatten_maps
from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, MaskPrediction


class UpsamplingStage(nn.Module):
    """Projects one map; the cells' queries attend to it in every layer, without position encodings."""

    def __init__(self, in_channels: int, channels: int, *, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.input_proj = project_tokens(in_channels, channels)
        self.layers = nn.ModuleList(
            DecoderLayer(channels, num_heads=num_heads, feedforward_channels=4 * channels, dropout=dropout)
            for _ in range(num_layers)
        )

    def forward(
        self,
        cells: Float[Tensor, "B N C"],
        x: Float[Tensor, "B D H W"],
        valid: Bool[Tensor, "B H W"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        """The queries after all layers.

        Args:
            valid: True in cells with a token; None where all cells have one.
        """
        tokens, may_attend = self.input_proj(flatten_maps([x])), attend_valid(valid)
        no_position = cells.new_zeros(cells.shape[1:])
        for layer in self.layers:
            cells = layer(cells, no_position, tokens, tokens, may_attend)
        return cells


@MODELS.register_module()
class QueryUpsamplingDecoder(nn.Module):
    """One query per cell restores a fine map from the backbone's maps; then one query per class attends to this map.

    The cells' queries attend to the maps finest first. Each layer of the class queries gives its own prediction; masks
    are not summed. A `BackboneQueryDecoder`: `MaskHead(pixel_decoder=None)`.

    Args:
        num_classes: K, also the number of class queries; one more class output means "absent".
        feature_spec: channels and strides of the backbone's maps; the head passes it.
        crop_size: height and width in pixels, or one number for both, that the cells' queries are learnt for; they are
            resized bicubically for other inputs.
        channels: width of all queries; half the channels of the deepest map unless given.
        num_heads: one per 32 channels unless given.
        num_layers: of the cells' queries for each map, and of the class queries.
        dropout: in attention weights, residual branches and feed-forward networks.
        cell_init: initial queries of the cells: "sine" position encodings, or "normal" random numbers of standard
            deviation 1, as released.
    """

    def __init__(
        self,
        num_classes: int,
        feature_spec: FeatureSpec,
        *,
        crop_size: int | tuple[int, int],
        channels: int | None = None,
        num_heads: int | None = None,
        num_layers: int = 3,
        dropout: float = 0.1,
        cell_init: str = "sine",
    ) -> None:
        super().__init__()
        height, width = to_2tuple(crop_size)
        if min(height, width) < 1:
            raise InvalidValueError(f"query_decoder.crop_size: expected sizes in pixels, got {crop_size}.")
        if cell_init not in ("sine", "normal"):
            raise InvalidValueError(f"query_decoder.cell_init: expected 'sine' or 'normal', got {cell_init!r}.")
        channels = channels or feature_spec.channels[-1] // 2
        num_heads = num_heads or max(channels // 32, 1)
        self.grid_size = (-(-height // feature_spec.strides[0]), -(-width // feature_spec.strides[0]))
        self.cell_feat = nn.Embedding(self.grid_size[0] * self.grid_size[1], channels)
        self.upsampling = nn.ModuleList(
            UpsamplingStage(c, channels, num_layers=num_layers, num_heads=num_heads, dropout=dropout)
            for c in feature_spec.channels
        )
        self.query_feat = nn.Embedding(num_classes, channels)
        self.layers = nn.ModuleList(
            AttentionToMaskLayer(channels, num_heads=num_heads, dropout=dropout) for _ in range(num_layers)
        )
        self.cls_embed = nn.Linear(channels, num_classes + 1)
        init_linears(self)
        if cell_init == "sine":
            with torch.no_grad():
                self.cell_feat.weight.copy_(positions_to_learn(self.grid_size, channels))

    def forward(self, features: Sequence[Float[Tensor, "B _ _ _"]], *, last_only: bool = False) -> list[MaskPrediction]:
        """Predictions after every layer of the class queries, or after the last one only; maps fine to coarse."""
        size = features[0].shape[-2:]
        cells = self._cells((size[0], size[1])).expand(features[0].shape[0], -1, -1)
        valid = features.valid if isinstance(features, PartialMaps) else [None] * len(features)
        for x, has_token, stage in zip(features, valid, self.upsampling, strict=True):
            cells = stage(cells, x, has_token)

        queries = self.query_feat.weight.expand(cells.shape[0], -1, -1)
        predictions = []
        for index, layer in enumerate(self.layers):
            queries, scores = layer(queries, cells)
            if index == len(self.layers) - 1 or not last_only:
                mask_features = keys_as_map(scores, size)
                predictions.append(MaskPrediction(self.cls_embed(queries), scores.embeddings, mask_features))
        return predictions

    def _cells(self, size: tuple[int, int]) -> Float[Tensor, "N C"]:
        """The cells' queries, for an input of `size` cells."""
        table = self.cell_feat.weight
        if is_known_equal(size, self.grid_size):
            return table
        grid = table.T.unflatten(-1, self.grid_size).unsqueeze(0)
        return F.interpolate(grid, size, mode="bicubic", align_corners=False).flatten(2).squeeze(0).T
