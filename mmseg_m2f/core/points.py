"""Reading maps at points, and choosing the points (PointRend, arXiv 1912.08193, section 3.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def sample_points(maps: Float[Tensor, "N C H W"], points: Float[Tensor, "N P 2"]) -> Float[Tensor, "N C P"]:
    """Read maps bilinearly at points; outside the map is zero.

    Pixel centres lie at ((column + 0.5) / W, (row + 0.5) / H).
    """
    grid = (2 * points - 1).unsqueeze(1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False).squeeze(2)


class Corners(NamedTuple):
    """The 2×2 pixels around each point: column and row of the upper left one, and the bilinear weights of all four.

    `shares` has an axis of four more than the points: upper left, upper right, lower left, lower right. They sum to 1.
    """

    left: Float[Tensor, "*P"]
    top: Float[Tensor, "*P"]
    shares: Float[Tensor, "*P4"]


def find_corners(x_px: Float[Tensor, "*P"], y_px: Float[Tensor, "*P"], *, dim: int) -> Corners:
    """The pixels around points given in pixels, where pixel centres have integer coordinates.

    With x = left + r and y = top + b the shares are (1 - r)(1 - b), r(1 - b), (1 - r)b and rb.

    Args:
        dim: the axis of four in `shares`.
    """
    left, top = x_px.floor(), y_px.floor()
    right_share, lower_share = x_px - left, y_px - top
    left_share, upper_share = 1 - right_share, 1 - lower_share
    shares = [left_share * upper_share, right_share * upper_share, left_share * lower_share, right_share * lower_share]
    return Corners(left, top, torch.stack(shares, dim))


class Taps(NamedTuple):
    """The four pixels around each point of a map, counted row by row, and their shares; outside the map they are 0."""

    pixels: Int[Tensor, "*N P 4"]
    shares: Float[Tensor, "*N P 4"]


def find_taps(size: tuple[int, int], points: Float[Tensor, "*N P 2"]) -> Taps:
    """Where to read a map of `size` (height, width) for its bilinear values at points."""
    height, width = size
    left, top, shares = find_corners(points[..., 0] * width - 0.5, points[..., 1] * height - 0.5, dim=-1)
    columns = torch.stack([left, left + 1, left, left + 1], -1)
    rows = torch.stack([top, top, top + 1, top + 1], -1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    pixels = rows.clamp(0, height - 1).long() * width + columns.clamp(0, width - 1).long()
    return Taps(pixels, shares * inside)


def sample_rows(table: Float[Tensor, "N C"], taps: Taps) -> Float[Tensor, "P C"]:
    """`sample_points` of maps given as a row of channels per pixel, at taps `P 4`, whose pixels are rows of the table.

    Rows lie together in memory, so that many channels are read several times faster.
    """
    return F.embedding_bag(taps.pixels, table, mode="sum", per_sample_weights=taps.shares.to(table.dtype))


def pick_uncertain(
    candidate_logits: Float[Tensor, "N S"],
    candidates: Float[Tensor, "N S 2"],
    num_uncertain: int,
    *,
    usable: Bool[Tensor, "N S"] | None = None,
) -> Float[Tensor, "N P 2"]:
    """Keep the candidates whose logits are nearest to zero; those not `usable` only if nothing else is left.

    The order of the points kept is not defined.
    """
    uncertainty = -candidate_logits.abs()
    if usable is not None:
        uncertainty = uncertainty.masked_fill(~usable, -torch.inf)
    kept = uncertainty.topk(num_uncertain, dim=1, sorted=False).indices
    return candidates.gather(1, kept.unsqueeze(-1).expand(-1, -1, 2))
