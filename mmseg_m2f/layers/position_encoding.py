"""Sine position encoding of a map (arXiv 2005.12872, appendix A.4) and of boxes (2201.12329, 3.4); cells' centres."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sine_position_encoding(
    size: tuple[int, int], channels: int, like: Tensor, *, temperature: float = 10000.0
) -> Float[Tensor, "C H W"]:
    """Encode row and column of each cell; the first half of the channels encodes the row.

    Channels 2i and 2i + 1 of a half with D channels hold the sine and cosine of `2π (y + 1) / H / temperature^(2i/D)`.
    Dtype and device are those of `like`; computed in at least float32.
    """
    period = _periods(channels, like, temperature)
    height, width = size
    places = [torch.arange(1, count + 1, dtype=period.dtype, device=period.device) / (count + 1e-6) for count in size]
    rows, columns = _encode(torch.cat(places), period).split(size)
    encoded = torch.cat([rows.unsqueeze(1).expand(-1, width, -1), columns.expand(height, -1, -1)], -1)
    return encoded.permute(2, 0, 1).to(like.dtype)


def padded_position_encoding(
    valid: Bool[Tensor, "B H W"], channels: int, like: Tensor, *, temperature: float = 10000.0
) -> Float[Tensor, "B C H W"]:
    """The same for padded images: positions are counted among, and divided by, the valid cells of a row or column.

    Valid cells get the values that they would get without the padding; the values of other cells are undefined.
    """
    period = _periods(channels, like, temperature)
    rows, columns = (valid.cumsum(axis, dtype=period.dtype) for axis in (1, 2))
    places = (x / (last + 1e-6) for x, last in ((rows, rows[:, -1:]), (columns, columns[:, :, -1:])))
    encoded = torch.cat([_encode(place, period) for place in places], -1)
    return encoded.permute(0, 3, 1, 2).to(like.dtype)


def sine_box_encoding(
    boxes: Float[Tensor, "*B 4"], channels: int, *, temperature: float = 10000.0
) -> Float[Tensor, "*B C2"]:
    """Encode centre y, centre x, width and height, in this order, by `channels` / 2 numbers each.

    Channels 2i and 2i + 1 of a quarter with D channels hold the sine and cosine of `2π v / temperature^(2i/D)`.

    Args:
        boxes: centre x, centre y, width, height, in [0, 1].
    """
    ordered = boxes[..., [1, 0, 2, 3]]
    return _encode(ordered, _periods(channels, boxes, temperature)).flatten(-2).to(boxes.dtype)


def positions_to_learn(size: tuple[int, int], channels: int) -> Float[Tensor, "N C"]:
    """Initial values of learnt position vectors, row by row: sine encodings."""
    return sine_position_encoding(size, channels, torch.empty(0)).flatten(1).T.contiguous()


def cell_centres(size: tuple[int, int], like: Tensor) -> Float[Tensor, "N 2"]:
    """xy of every cell's centre, row by row, in at least float32."""
    height, width = size
    dtype = torch.promote_types(like.dtype, torch.float32)
    y = (torch.arange(height, dtype=dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=dtype, device=like.device) + 0.5) / width
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)


def _periods(channels: int, like: Tensor, temperature: float) -> Float[Tensor, "C"]:
    per_axis = channels // 2
    dtype = torch.promote_types(like.dtype, torch.float32)
    index = torch.arange(per_axis, dtype=dtype, device=like.device)
    return temperature ** (2 * (index // 2) / per_axis)


def _encode(place: Float[Tensor, "*N"], period: Float[Tensor, "C"]) -> Float[Tensor, "*N C"]:
    """Encode places in [0, 1]."""
    angle = (place * (2 * math.pi)).unsqueeze(-1) / period
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2)
