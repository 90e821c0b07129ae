"""Post-norm transformer layers. Parameter names follow mmdet's, so that its checkpoints load."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.deformable_attention import DeformableAttention
from mmseg_m2f.layers.matrix_products import linear
from mmseg_m2f.layers.position_encoding import padded_position_encoding, sine_position_encoding


class Attention(nn.Module):
    """Multi-head attention (arXiv 1706.03762, section 3.2) without the residual connection.

    `attn` only holds the parameters; the computation is `scaled_dot_product_attention`, which needs no copy of the mask
    per head and does not store the attention probabilities.
    """

    def __init__(self, channels: int, *, num_heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % num_heads:
            raise InvalidValueError(f"Attention: channels {channels} must be a multiple of num_heads {num_heads}.")
        self.num_heads, self.dropout = num_heads, dropout
        self.attn = nn.MultiheadAttention(channels, num_heads)

    def forward(
        self,
        query: Float[Tensor, "B Q C"],
        key: Float[Tensor, "B N C"],
        value: Float[Tensor, "B N C"],
        may_attend: Bool[Tensor, "B #Q N"] | None = None,
    ) -> Float[Tensor, "B Q C"]:
        """`softmax(Q Kᵀ / √(C/M)) V` per head, projected.

        Args:
            may_attend: True where a query may attend to a key, at least once in every row; None for everywhere.
        """
        weights = self.attn.in_proj_weight.chunk(3)
        biases = self.attn.in_proj_bias.chunk(3)
        q, k, v = (
            linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        attended = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if may_attend is None else may_attend.unsqueeze(1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        out = self.attn.out_proj
        return linear(attended.transpose(1, 2).flatten(2), out.weight, out.bias)


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between, without the residual connection."""

    def __init__(self, channels: int, hidden_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(channels, hidden_channels), nn.ReLU(), nn.Dropout(dropout))
        self.layers = nn.Sequential(first, nn.Linear(hidden_channels, channels), nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return self.layers(x)


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over the tokens of all levels, then a feed-forward network.

    Args:
        recompute: compute all activations again in the backward pass; of about twelve tensors of the size of the tokens
            only the layer's input is kept, with the positions that all layers share.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_levels: int,
        num_heads: int,
        num_points: int,
        feedforward_channels: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.self_attn = DeformableAttention(
            channels, num_levels=num_levels, num_heads=num_heads, num_points=num_points
        )
        self.ffn = FeedForward(channels, feedforward_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        init_matrices(self.ffn)

    def forward(
        self,
        tokens: Float[Tensor, "B N C"],
        position: Float[Tensor, "N C"],
        reference_points: Float[Tensor, "N 2"],
        sizes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "B N C"]:
        arguments = (tokens, position, reference_points, sizes)
        if not (self.recompute and torch.is_grad_enabled()):
            return self._refine(*arguments)
        # The layer draws no random numbers.
        return checkpoint(self._refine, *arguments, use_reentrant=False, preserve_rng_state=False)

    def _refine(
        self,
        tokens: Float[Tensor, "B N C"],
        position: Float[Tensor, "N C"],
        reference_points: Float[Tensor, "N 2"],
        sizes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "B N C"]:
        attended = self.self_attn(tokens + position, tokens, reference_points, sizes)
        tokens = self.norms[0](tokens + attended)
        return self.norms[1](tokens + self.ffn(tokens))


class EncoderLayer(nn.Module):
    """DETR's encoder layer: self-attention with positions on query and key, then a feed-forward network."""

    def __init__(self, channels: int, *, num_heads: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(channels, num_heads=num_heads, dropout=dropout)
        self.ffn = FeedForward(channels, feedforward_channels, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        init_matrices(self)

    def forward(
        self,
        tokens: Float[Tensor, "B N C"],
        position: Float[Tensor, "*#B N C"],
        may_attend: Bool[Tensor, "B 1 N"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        placed = tokens + position
        attended = self.self_attn(placed, placed, tokens, may_attend)
        tokens = self.norms[0](tokens + self.dropout(attended))
        return self.norms[1](tokens + self.ffn(tokens))


class Encoder(nn.Module):
    """A stack of DETR's encoder layers over the cells of one map."""

    def __init__(
        self, channels: int, *, num_layers: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(channels, num_heads=num_heads, feedforward_channels=feedforward_channels, dropout=dropout)
            for _ in range(num_layers)
        )

    def forward(
        self, x: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """The encoded map.

        Args:
            valid: True for cells that may be attended to; None for all.
        """
        tokens, position = place_tokens(x, valid)
        may_attend = attend_valid(valid)
        for layer in self.layers:
            tokens = layer(tokens, position, may_attend)
        return tokens.transpose(1, 2).unflatten(-1, x.shape[-2:])


class DecoderLayer(nn.Module):
    """DETR's decoder layer: self-attention, cross-attention to all keys, feed-forward network."""

    def __init__(self, channels: int, *, num_heads: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(channels, num_heads=num_heads, dropout=dropout)
        self.cross_attn = Attention(channels, num_heads=num_heads, dropout=dropout)
        self.ffn = FeedForward(channels, feedforward_channels, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        init_matrices(self)

    def forward(
        self,
        queries: Float[Tensor, "B Q C"],
        query_position: Float[Tensor, "Q C"],
        key: Float[Tensor, "B N C"],
        value: Float[Tensor, "B N C"],
        may_attend: Bool[Tensor, "B 1 N"] | None = None,
    ) -> Float[Tensor, "B Q C"]:
        placed = queries + query_position
        queries = self.norms[0](queries + self.dropout(self.self_attn(placed, placed, queries)))
        attended = self.cross_attn(queries + query_position, key, value, may_attend)
        queries = self.norms[1](queries + self.dropout(attended))
        return self.norms[2](queries + self.ffn(queries))


class Decoder(nn.Module):
    """A stack of DETR's decoder layers and the norm before the prediction heads, which all layers share."""

    def __init__(
        self, channels: int, *, num_layers: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(channels, num_heads=num_heads, feedforward_channels=feedforward_channels, dropout=dropout)
            for _ in range(num_layers)
        )
        self.post_norm = nn.LayerNorm(channels)

    def forward(
        self,
        query_position: Float[Tensor, "Q C"],
        memory: Float[Tensor, "B C H W"],
        valid: Bool[Tensor, "B H W"] | None = None,
        *,
        last_only: bool = False,
        num_layers: int | None = None,
    ) -> list[Float[Tensor, "B Q C"]]:
        """Normed queries after every layer, or after the last one only. The initial queries are 0.

        Args:
            num_layers: run the first layers only.
        """
        value, position = place_tokens(memory, valid)
        key, may_attend = value + position, attend_valid(valid)
        queries = query_position.new_zeros(memory.shape[0], *query_position.shape)
        states = []
        for layer in self.layers[:num_layers]:
            queries = layer(queries, query_position, key, value, may_attend)
            states.append(queries)
        return [self.post_norm(state) for state in (states[-1:] if last_only else states)]


class MaskedDecoderLayer(nn.Module):
    """Mask2Former's decoder layer: masked cross-attention, self-attention, feed-forward network.

    `norms[0]` belongs to the cross-attention, unlike in DETR's layers.
    """

    def __init__(self, channels: int, *, num_heads: int, feedforward_channels: int) -> None:
        super().__init__()
        self.cross_attn = Attention(channels, num_heads=num_heads)
        self.self_attn = Attention(channels, num_heads=num_heads)
        self.ffn = FeedForward(channels, feedforward_channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        init_matrices(self)

    def forward(
        self,
        queries: Float[Tensor, "B Q C"],
        query_position: Float[Tensor, "Q C"],
        key: Float[Tensor, "B N C"],
        value: Float[Tensor, "B N C"],
        may_attend: Bool[Tensor, "B Q N"],
    ) -> Float[Tensor, "B Q C"]:
        attended = self.cross_attn(queries + query_position, key, value, may_attend)
        queries = self.norms[0](queries + attended)
        placed = queries + query_position
        queries = self.norms[1](queries + self.self_attn(placed, placed, queries))
        return self.norms[2](queries + self.ffn(queries))


def init_matrices(module: nn.Module) -> None:
    """Xavier-uniform for every parameter with more than one axis, as the official releases do."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def attend_inside(mask_logits: Float[Tensor, "B Q N"]) -> Bool[Tensor, "B Q N"]:
    """True where a query's mask logit is not negative; everywhere for queries whose logits are all negative."""
    inside = mask_logits >= 0
    return inside | ~inside.any(-1, keepdim=True)


def attend_valid(valid: Bool[Tensor, "B H W"] | None) -> Bool[Tensor, "B 1 N"] | None:
    """True for cells that may be attended to, those on the image; None, for all, without padding."""
    return None if valid is None else valid.flatten(1).unsqueeze(1)


def place_tokens(
    x: Float[Tensor, "B C H W"], valid: Bool[Tensor, "B H W"] | None
) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "*#B N C"]]:
    """The cells of a map as tokens, and their positions: `N C`, or `B N C` where padding differs between images."""
    if valid is None:
        position = sine_position_encoding((x.shape[-2], x.shape[-1]), x.shape[1], x)
    else:
        position = padded_position_encoding(valid, x.shape[1], x)
    return flatten_maps([x]), position.flatten(-2).transpose(-1, -2)


def flatten_maps(maps: Sequence[Float[Tensor, "B C _ _"]]) -> Float[Tensor, "B N C"]:
    """The cells of all maps as one row of tokens per image."""
    return torch.cat([x.flatten(2) for x in maps], -1).transpose(1, 2)
