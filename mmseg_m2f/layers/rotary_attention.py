"""Self-attention with rotary positions of image patches, as DINOv3 has them (arXiv 2508.10104, section 3.2)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.layers.position_encoding import cell_centres


def patch_rotations(
    grid: tuple[int, int], channels: int, like: Tensor, *, base: float = 100.0
) -> tuple[Float[Tensor, "P C2"], Float[Tensor, "P C2"]]:
    """Sine and cosine of the angles that patches, row by row, are rotated by.

    The angles are `2π u / base^(4j/C)` for j in 0…C/4 - 1, first of the row, then of the column; u, in [-1, 1], is
    where the centre of the patch lies. Computed in at least float32.
    """
    places = (2 * cell_centres(grid, like) - 1).flip(-1)  # row, then column
    exponent = torch.arange(channels // 4, dtype=places.dtype, device=like.device) * 4 / channels
    angles = (2 * math.pi * places.unsqueeze(-1) / base**exponent).flatten(1)
    return angles.sin(), angles.cos()


def rotate(
    x: Float[Tensor, "B M P C"], rotations: tuple[Float[Tensor, "P C2"], Float[Tensor, "P C2"]]
) -> Float[Tensor, "B M P C"]:
    """Channel j and j + C/2 of each head, as the two sides of a plane, turned by the j-th angle of their patch."""
    sine, cosine = rotations
    first, second = x.chunk(2, -1)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
    return turned.to(x.dtype)


class RotarySelfAttention(nn.Module):
    """Attention of all tokens to each other, where patches, which stand last, are rotated by their places.

    The keys have no bias.
    """

    def __init__(self, channels: int, *, num_heads: int) -> None:
        super().__init__()
        if channels % (4 * num_heads):
            raise InvalidValueError(
                f"RotarySelfAttention: channels {channels} must be a multiple of 4 · num_heads, got {num_heads} heads."
            )
        self.num_heads = num_heads
        self.q_proj, self.v_proj, self.o_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.k_proj = nn.Linear(channels, channels, bias=False)

    def forward(
        self,
        tokens: Float[Tensor, "B N C"],
        grid: tuple[int, int],
        may_attend: Bool[Tensor, "B 1 N N"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        """The tokens' new content; `grid` is the height and width of the patches."""
        num_patches = grid[0] * grid[1]
        rotations = patch_rotations(grid, tokens.shape[-1] // self.num_heads, tokens)
        query, key, value = (
            layer(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = (
            torch.cat([x[:, :, :-num_patches], rotate(x[:, :, -num_patches:], rotations)], 2) for x in (query, key)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=may_attend)
        return self.o_proj(attended.transpose(1, 2).flatten(2))
