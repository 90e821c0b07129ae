"""Segments kept as one map per image, and read at points without ever making one mask per segment."""

from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmseg_m2f.structures import BACKGROUND, VOID, MaskTarget


class TargetBatch:
    """The targets of a batch as tensors, padded to the same G; each tensor is made when first asked for."""

    def __init__(self, targets: Sequence[MaskTarget]) -> None:
        self.targets = targets

    @cached_property
    def labels(self) -> Int[Tensor, "B G"]:
        """Classes, padded with 0."""
        return pad_sequence([target.labels for target in self.targets], batch_first=True)

    @cached_property
    def segment_maps(self) -> Int[Tensor, "B S H W"]:
        """Segment maps; see `stack_segment_maps`."""
        return stack_segment_maps([target.segment_map for target in self.targets])

    @cached_property
    def boxes(self) -> Float[Tensor, "B G 4"]:
        """Boxes (see `MaskTarget.boxes`), padded with 0.

        Raises:
            ValueError: a target has none; names the image.
        """
        boxes = []
        for target in self.targets:
            if target.boxes is None:
                raise ValueError(
                    f"{target.name or 'An image'}: expected boxes for the box costs and losses, got a target without. "
                    "Train on objects with a MaskDetector, whose samples have gt_instances.bboxes."
                )
            boxes.append(target.boxes)
        return pad_sequence(boxes, batch_first=True)


def segments_of_label_map(
    label_map: Int[Tensor, "H W"], ignore_index: int
) -> tuple[Int[Tensor, "G"], Int[Tensor, "1 H W"]]:
    """One segment per class that is present: their classes (ascending) and the segment map.

    Ignored pixels become `VOID`. A class that a crop removed makes no segment.
    """
    present = torch.bincount(label_map.flatten()) > 0
    present[ignore_index : ignore_index + 1] = False
    new_index = torch.where(present, present.cumsum(0) - 1, VOID)
    return present.nonzero().squeeze(1), new_index[label_map].unsqueeze(0)


def segments_of_masks(masks: Bool[Tensor, "G H W"]) -> Int[Tensor, "S H W"]:
    """The segment map of masks that may overlap: one sheet if they do not, else as few as first fit finds.

    Pixels outside all masks are `BACKGROUND`. Without a mask there is one sheet.
    """
    if len(masks) == 0:
        return masks.new_full((1, *masks.shape[1:]), BACKGROUND, dtype=torch.long)
    if masks.sum(0, dtype=torch.int32).max() <= 1:
        inside, segment = masks.max(0)
        return segment.where(inside, BACKGROUND).unsqueeze(0)
    sheets: list[Tensor] = []
    for index, mask in enumerate(masks):
        fitting = [sheet for sheet in sheets if not (sheet[mask] >= 0).any()]
        if not fitting:
            fitting = [masks.new_full(masks.shape[1:], BACKGROUND, dtype=torch.long)]
            sheets += fitting
        fitting[0].masked_fill_(mask, index)
    return torch.stack(sheets)


def stack_segment_maps(segment_maps: Sequence[Int[Tensor, "_ H W"]]) -> Int[Tensor, "B S H W"]:
    """The maps of a batch, with empty sheets added where an image has fewer than another."""
    most = max(len(sheets) for sheets in segment_maps)
    padded = [F.pad(sheets, (0, 0, 0, 0, 0, most - len(sheets)), value=BACKGROUND) for sheets in segment_maps]
    return torch.stack(padded)


def read_segments(
    segment_maps: Int[Tensor, "B S H W"], points: Float[Tensor, "B P 2"], num_segments: int
) -> tuple[Float[Tensor, "B G P"], Float[Tensor, "B P"]]:
    """Every segment's mask at points shared by the segments of an image, and how far each point is known.

    Equals bilinear sampling of the dense masks with zeros outside. G is `num_segments`; rows beyond an
    image's own segments are zero. The second value is the share of the point that does not lie on void.
    """
    ids, weights = _bilinear_taps(segment_maps, points, torch.arange(len(points), device=points.device))
    # Rows 0..G-1 collect the segments, the last one all else.
    rows = torch.where(ids >= 0, ids, num_segments).flatten(1, 2)
    masks = weights.new_zeros(len(points), num_segments + 1, points.shape[1])
    masks.scatter_add_(1, rows, weights.unsqueeze(1).expand_as(ids).flatten(1, 2))
    return masks[:, :num_segments], _known_share(ids, weights)


def read_paired_segments(
    segment_maps: Int[Tensor, "B S H W"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    segments: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
    """The mask of one segment per row at that row's own points, and how far each point is known.

    Row n reads segment `segments[n]` of image `images[n]`.
    """
    ids, weights = _bilinear_taps(segment_maps, points, images)
    inside = (ids == segments[:, None, None, None]).any(1)  # a segment lies in one sheet
    return (inside * weights).sum(1), _known_share(ids, weights)


def is_known(
    segment_maps: Int[Tensor, "B S H W"], points: Float[Tensor, "N P 2"], images: Int[Tensor, "N"]
) -> Bool[Tensor, "N P"]:
    """Whether the pixel that each point lies in is not void; row n reads image `images[n]`."""
    height, width = segment_maps.shape[-2:]
    columns = (points[..., 0] * width).long().clamp(max=width - 1)
    rows = (points[..., 1] * height).long().clamp(max=height - 1)
    return segment_maps[images[:, None], 0, rows, columns] != VOID


def _known_share(ids: Int[Tensor, "N S 4 P"], weights: Float[Tensor, "N 4 P"]) -> Float[Tensor, "N P"]:
    return ((ids[:, 0] != VOID) * weights).sum(1)


def _bilinear_taps(
    segment_maps: Int[Tensor, "B S H W"], points: Float[Tensor, "N P 2"], images: Int[Tensor, "N"]
) -> tuple[Int[Tensor, "N S 4 P"], Float[Tensor, "N 4 P"]]:
    """Ids in each sheet and bilinear weights of the four pixels around each point; row n reads image `images[n]`.

    Outside the map is background, or void where void touches the border.
    """
    height, width = segment_maps.shape[-2:]
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
    pixel = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).long()
    sheets = segment_maps.shape[1]
    sheet = images[:, None] * sheets + torch.arange(sheets, device=images.device)  # N S
    ids = segment_maps.flatten()[sheet[:, :, None, None] * (height * width) + pixel.unsqueeze(1)]
    return ids.where(inside.unsqueeze(1) | (ids == VOID), BACKGROUND), weights
