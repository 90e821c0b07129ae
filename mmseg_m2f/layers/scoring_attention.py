"""Attention that tells its scores (SegViT, arXiv 2210.05844, section 3.2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.transformer import Attention, FeedForward


class Scores(NamedTuple):
    """Scores of queries and tokens, as two factors: their inner product over all channels.

    It is the mean over the heads of what the softmax gets. Both are float32, also under autocast, where the projections
    that make them may run in half precision: the product is the large number.
    """

    embeddings: Float[Tensor, "B Q C"]
    keys: Float[Tensor, "B N C"]


class ScoringAttention(nn.Module):
    """Multi-head attention to tokens, without the residual connection, and its scores."""

    def __init__(self, channels: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        if channels % num_heads:
            raise InvalidValueError(
                f"ScoringAttention: channels {channels} must be a multiple of num_heads {num_heads}."
            )
        self.num_heads, self.dropout = num_heads, dropout
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(
        self, queries: Float[Tensor, "B Q C"], tokens: Float[Tensor, "B N C"]
    ) -> tuple[Float[Tensor, "B Q C"], Scores]:
        q, k = self.q(queries), self.k(tokens)
        attended = F.scaled_dot_product_attention(
            self._split(q),
            self._split(k),
            self._split(self.v(tokens)),
            dropout_p=self.dropout if self.training else 0.0,
        )
        # A head of C / M channels divides by √(C / M), the mean by M.
        scale = (q.shape[-1] * self.num_heads) ** -0.5
        return self.out(attended.transpose(1, 2).flatten(2)), Scores(q.float() * scale, k.float())

    def _split(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B M N _"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AttentionToMaskLayer(nn.Module):
    """Self-attention, attention to tokens, feed-forward network, each followed by its norm; nothing has a position."""

    def __init__(self, channels: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(channels, num_heads=num_heads, dropout=dropout)
        self.cross_attn = ScoringAttention(channels, num_heads=num_heads, dropout=dropout)
        self.ffn = FeedForward(channels, 4 * channels, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Float[Tensor, "B Q C"], tokens: Float[Tensor, "B N C"]
    ) -> tuple[Float[Tensor, "B Q C"], Scores]:
        """The queries after this layer, and the scores they gave to the tokens in it."""
        queries = self.norms[0](queries + self.dropout(self.self_attn(queries, queries, queries)))
        attended, scores = self.cross_attn(queries, tokens)
        queries = self.norms[1](queries + self.dropout(attended))
        return self.norms[2](queries + self.ffn(queries)), scores


def init_linears(module: nn.Module) -> None:
    """Truncated normal of 0.02 and no bias in every linear layer; joint projections of attention stay as they are."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)


def project_tokens(in_channels: int, channels: int) -> nn.Sequential:
    """Tokens of a backbone to the decoder's width, normed."""
    return nn.Sequential(nn.Linear(in_channels, channels), nn.LayerNorm(channels))


def keys_as_map(scores: Scores, size: torch.Size) -> Float[Tensor, "B C H W"]:
    """The keys on the grid that their tokens come from."""
    return scores.keys.transpose(1, 2).unflatten(-1, size)
