"""Attention that also returns its scores (SegViT, arXiv 2210.05844, section 3.2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.transformer import Attention, FeedForward


class Scores(NamedTuple):
    """Attention scores as two factors, whose inner product over the channels is the score of a query and a token.

    The score is the mean over the M heads of the input of the softmax, `Σ_m q_m · k_m / (M √(C/M))`. Both factors are
    float32, also under autocast, so that the product is; their projections may run in half precision.
    """

    embeddings: Float[Tensor, "B Q C"]
    keys: Float[Tensor, "B N C"]


class ScoringAttention(nn.Module):
    """Multi-head attention to tokens, without the residual connection, that also returns its scores."""

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
        # 1 / √(C/M) of a head, times 1 / M of the mean.
        scale = (q.shape[-1] * self.num_heads) ** -0.5
        return self.out(attended.transpose(1, 2).flatten(2)), Scores(q.float() * scale, k.float())

    def _split(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B M N D"]:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AttentionToMaskLayer(nn.Module):
    """Self-attention, attention to tokens, feed-forward network, each followed by its norm; no position encodings."""

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
        """The queries after this layer, and their scores for the tokens."""
        queries = self.norms[0](queries + self.dropout(self.self_attn(queries, queries, queries)))
        attended, scores = self.cross_attn(queries, tokens)
        queries = self.norms[1](queries + self.dropout(attended))
        return self.norms[2](queries + self.ffn(queries)), scores


def init_linears(module: nn.Module) -> None:
    """Initialise every `nn.Linear` with a truncated normal of 0.02 and zero bias; not `in_proj_weight` of attention."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)


def project_tokens(in_channels: int, channels: int) -> nn.Sequential:
    """Linear projection of a backbone's tokens to the decoder's width, and a layer norm."""
    return nn.Sequential(nn.Linear(in_channels, channels), nn.LayerNorm(channels))


def keys_as_map(scores: Scores, size: torch.Size) -> Float[Tensor, "B C H W"]:
    """The keys as a map of height and width `size`."""
    return scores.keys.transpose(1, 2).unflatten(-1, size)
