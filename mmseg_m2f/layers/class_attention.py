"""Class embeddings from class masks, and attention to them that gives new masks (ECENet, arXiv 2308.12894, section 3).

The released inference code (Apache-2.0) is followed where it and the paper differ; see `ExplicitClassHead`.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.channel_norm import ChannelNorm


class ClassTokens(nn.Module):
    """One token per class: a linear map of its mask logits, pooled to square grids of several sizes.

    The sizes are `pool_sizes` and `class_grid_size(num_classes)`.
    """

    def __init__(self, channels: int, *, num_classes: int, pool_sizes: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.sizes = (*pool_sizes, class_grid_size(num_classes))
        self.embed = nn.Linear(sum(size**2 for size in self.sizes), channels)

    def forward(self, mask_logits: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K C"]:
        # Adaptive pooling repeats pixels of masks that are smaller than a grid.
        pooled = [F.adaptive_avg_pool2d(mask_logits, size).flatten(2) for size in self.sizes]
        return self.embed(torch.cat(pooled, -1))


def class_grid_size(num_classes: int) -> int:
    """⌊√K⌋, or the next odd number where that is even."""
    size = math.isqrt(num_classes)
    return size + (size + 1) % 2


class ClassAttention(nn.Module):
    """Transformer layer in which the pixels of a map attend to class embeddings; the scores are mask logits.

    With scores `s_mkn = q_mn · k_mk / √(C/M)` of pixel n and class k in head m, the attention is `softmax_k(a s) v`
    with a = `attn_sign`, and the mask logits are the mean of s over the heads.

    Args:
        attn_sign: -1 attends to the classes with the lowest scores, as released; +1 to those with the highest.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 4,
        mlp_ratio: float = 4.0,
        attn_sign: int = -1,
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise InvalidValueError(f"ClassAttention: channels {channels} must be a multiple of num_heads {num_heads}.")
        if attn_sign not in (-1, 1):
            raise InvalidValueError(f"ClassAttention: attn_sign must be -1 or 1, got {attn_sign!r}.")
        self.num_heads, self.attn_sign = num_heads, attn_sign
        self.norm_map, self.norm_classes = ChannelNorm(channels), nn.LayerNorm(channels)
        self.q = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Identity(),  # keeps the names of the weights
            nn.Conv2d(channels, channels, 1),
        )
        self.kv = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)
        hidden = int(channels * mlp_ratio)
        self.norm_ffn = ChannelNorm(channels)
        self.ffn = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(
        self, x: Float[Tensor, "B C H W"], classes: Float[Tensor, "B K C"]
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B K H W"]]:
        """The map after attention, and mask logits: scores averaged over the heads, in float32."""
        queries = self.q(self.norm_map(x)).unflatten(1, (self.num_heads, -1)).flatten(3)  # B M C N
        keys, values = self.kv(self.norm_classes(classes)).unflatten(-1, (2, self.num_heads, -1)).unbind(2)  # B K M C
        with torch.autocast(x.device.type, enabled=False):
            scores = torch.einsum("bmcn,bkmc->bmkn", queries.float(), keys.float()) * queries.shape[2] ** -0.5
            weights = (self.attn_sign * scores).softmax(2)
            attended = torch.einsum("bmkn,bkmc->bmcn", weights, values.float())
        x = x + self.out(attended.flatten(1, 2).unflatten(-1, x.shape[-2:]).to(x.dtype))
        return x + self.ffn(self.norm_ffn(x)), scores.mean(1).unflatten(-1, x.shape[-2:])


class ClassUpdater(nn.Module):
    """Gated update of class embeddings c by new ones n: `out(g · norm(B n) + c)` with `g = gate(W c · A n)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.news = nn.Linear(channels, 2 * channels)
        self.classes = nn.Linear(channels, channels)
        self.gate = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.Sigmoid())
        self.norm_news = nn.LayerNorm(channels)
        self.out = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU())

    def forward(self, news: Float[Tensor, "B K C"], classes: Float[Tensor, "B K C"]) -> Float[Tensor, "B K C"]:
        compared, added = self.news(news).chunk(2, -1)
        gate = self.gate(self.classes(classes) * compared)
        return self.out(gate * self.norm_news(added) + classes)
