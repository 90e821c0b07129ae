"""Segments kept as one map per image, and read at points without ever making one mask per segment."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.structures import BACKGROUND, VOID


def segments_of_label_map(
    label_map: Int[Tensor, "H W"], ignore_index: int
) -> tuple[Int[Tensor, "G"], Int[Tensor, "H W"]]:
    """One segment per class that is present: their classes (ascending) and the segment map.

    Ignored pixels become `VOID`. A class that a crop removed makes no segment.
    """
    present = torch.bincount(label_map.flatten()) > 0
    present[ignore_index : ignore_index + 1] = False
    new_index = torch.where(present, present.cumsum(0) - 1, VOID)
    return present.nonzero().squeeze(1), new_index[label_map]


def read_segments(
    segment_maps: Int[Tensor, "B H W"], points: Float[Tensor, "B P 2"], num_segments: int
) -> tuple[Float[Tensor, "B G P"], Float[Tensor, "B P"]]:
    """Every segment's mask at points shared by the segments of an image, and how far each point is known.

    Equals bilinear sampling of the dense masks with zeros outside. G is `num_segments`; rows beyond an
    image's own segments are zero. The second value is the share of the point that does not lie on void.
    """
    ids, weights = _bilinear_taps(segment_maps.flatten(1), segment_maps.shape[-2:], points)
    batch, _, num_points = ids.shape
    # Rows 0..G-1 collect the segments, row G the background, row G+1 the void.
    rows = torch.where(ids >= 0, ids, num_segments - 1 - ids)
    masks = weights.new_zeros(batch, num_segments + 2, num_points)
    masks.scatter_add_(1, rows, weights)
    return masks[:, :num_segments], ((ids != VOID) * weights).sum(1)


def read_paired_segments(
    segment_maps: Int[Tensor, "B H W"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    segments: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
    """The mask of one segment per row at that row's own points, and how far each point is known.

    Row n reads segment `segments[n]` of image `images[n]`.
    """
    size = segment_maps.shape[-2:]
    flat = segment_maps.flatten(1)
    all_maps = flat.reshape(1, -1).expand(len(images), -1)
    ids, weights = _bilinear_taps(all_maps, size, points, images * flat.shape[1])
    masks = ((ids == segments[:, None, None]) * weights).sum(1)
    return masks, ((ids != VOID) * weights).sum(1)


def is_known(
    segment_maps: Int[Tensor, "B H W"], points: Float[Tensor, "N P 2"], images: Int[Tensor, "N"]
) -> Bool[Tensor, "N P"]:
    """Whether the pixel that each point lies in is not void; row n reads image `images[n]`."""
    height, width = segment_maps.shape[-2:]
    columns = (points[..., 0] * width).long().clamp(max=width - 1)
    rows = (points[..., 1] * height).long().clamp(max=height - 1)
    return segment_maps.flatten()[(images[:, None] * height + rows) * width + columns] != VOID


def _bilinear_taps(
    flat_maps: Int[Tensor, "N _"],
    size: torch.Size,
    points: Float[Tensor, "N P 2"],
    offsets: Int[Tensor, "N"] | None = None,
) -> tuple[Int[Tensor, "N 4 P"], Float[Tensor, "N 4 P"]]:
    """Ids and bilinear weights of the four pixels around each point.

    Outside the map is background, or void where void touches the border.
    """
    height, width = size
    x_px = points[..., 0] * width - 0.5
    y_px = points[..., 1] * height - 0.5
    left, top = x_px.floor(), y_px.floor()
    right_share, lower_share = x_px - left, y_px - top
    columns = torch.stack([left, left + 1, left, left + 1], 1)
    rows = torch.stack([top, top, top + 1, top + 1], 1)
    weights = torch.stack(
        [
            (1 - right_share) * (1 - lower_share),
            right_share * (1 - lower_share),
            (1 - right_share) * lower_share,
            right_share * lower_share,
        ],
        1,
    )
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).long()
    if offsets is not None:
        index = index + offsets[:, None, None]
    ids = flat_maps.gather(1, index.flatten(1)).unflatten(1, (4, -1))
    return ids.where(inside | (ids == VOID), BACKGROUND), weights
