"""Sine position encoding of a map (arXiv 2005.12872, appendix A.4)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sine_position_encoding(
    size: tuple[int, int], channels: int, like: Tensor, *, temperature: float = 10000.0
) -> Float[Tensor, "C H W"]:
    """Encode row and column of each cell; the first half of the channels encodes the row.

    Positions count from 1 and are scaled so that the last one is 2π. Even channels hold sines, odd ones
    cosines. Dtype and device are those of `like`; computed in at least float32.
    """
    per_axis = channels // 2
    dtype = torch.promote_types(like.dtype, torch.float32)
    index = torch.arange(per_axis, dtype=dtype, device=like.device)
    period = temperature ** (2 * (index // 2) / per_axis)
    height, width = size
    rows = _encode_axis(height, period).unsqueeze(1).expand(-1, width, -1)
    columns = _encode_axis(width, period).unsqueeze(0).expand(height, -1, -1)
    return torch.cat([rows, columns], -1).permute(2, 0, 1).to(like.dtype)


def _encode_axis(length: int, period: Float[Tensor, "C"]) -> Float[Tensor, "N C"]:
    position = torch.arange(1, length + 1, dtype=period.dtype, device=period.device)
    angle = (position / (length + 1e-6) * (2 * math.pi)).unsqueeze(1) / period
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1)
