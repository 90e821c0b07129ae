"""Segments kept as one map per image, and read at points without ever making one mask per segment."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures import BACKGROUND, CROWD, VOID, Assignment, MaskReadings, MaskTarget, Prediction


class TargetBatch:
    """The targets of a batch as tensors, padded to the same G; each tensor is made when first asked for."""

    def __init__(self, targets: Sequence[MaskTarget]) -> None:
        self.targets = targets
        self.num_segments = [target.num_segments for target in targets]

    @cached_property
    def labels(self) -> Int[Tensor, "B G"]:
        """Classes, padded with 0."""
        return pad_sequence([target.labels for target in self.targets], batch_first=True)

    @cached_property
    def segment_maps(self) -> Int[Tensor, "B S H W"]:
        """Segment maps; see `stack_segment_maps`."""
        return stack_segment_maps([target.segment_map for target in self.targets])

    @cached_property
    def framed_maps(self) -> Int[Tensor, "B S H2 W2"]:
        """Segment maps with a frame, as the functions that read at points want them; see `frame`."""
        return frame(self.segment_maps)

    @cached_property
    def boxes(self) -> Float[Tensor, "B G 4"]:
        """Boxes (see `MaskTarget.boxes`), padded with 0.

        Raises:
            ValueError: a target has none; names the image.
        """
        boxes = []
        for target in self.targets:
            if target.boxes is None:
                raise InvalidValueError(
                    f"{target.name or 'An image'}: expected boxes for the box costs and losses, got a target without. "
                    "Train on objects with a MaskDetector, whose samples have gt_instances.bboxes."
                )
            boxes.append(target.boxes)
        return pad_sequence(boxes, batch_first=True)


@runtime_checkable
class MaskSampling(Protocol):
    """Decides where masks are compared: at points, or everywhere."""

    def places_in_matching(self, prediction: Prediction) -> int:
        """P of `for_matching`."""
        ...

    def places_in_loss(self, targets: TargetBatch) -> int:
        """How many places `for_loss` looks at for each mask."""
        ...

    def for_matching(self, predictions: Sequence[Prediction], targets: TargetBatch, image: int) -> MaskReadings:
        """Of one image: logits `L Q P` of all queries, masks `L G P` of all segments, and `L P`, at shared places."""
        ...

    def for_loss(
        self,
        logits: Float[Tensor, "N _ _"],
        targets: TargetBatch,
        images: Int[Tensor, "N"],
        segments: Int[Tensor, "N"],
    ) -> MaskReadings:
        """Logits, masks and knowledge `N P` of matched pairs; pair n is segment `segments[n]` of `images[n]`."""
        ...


@runtime_checkable
class Assigner(Protocol):
    """Decides which query answers for which segment, for all layers and images in one call."""

    def __call__(self, predictions: Sequence[Prediction], targets: TargetBatch) -> Assignment: ...


def segments_of_label_map(
    label_map: Int[Tensor, "H W"], classes: Sequence[int], *, num_labels: int
) -> tuple[Int[Tensor, "G"], Int[Tensor, "1 H W"]]:
    """One segment per class: the classes, and the segment map. All other labels become `VOID`.

    Args:
        label_map: labels in [0, `num_labels`).
        classes: those that occur, known on the host, so that nothing waits for the device.
    """
    index_of = torch.full((num_labels,), VOID)
    index_of[list(classes)] = torch.arange(len(classes))
    labels = torch.tensor(classes, dtype=torch.long)
    device = label_map.device
    segment_map = index_of.to(device, non_blocking=True)[label_map]
    return labels.to(device, non_blocking=True), segment_map.unsqueeze(0)


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


def frame(segment_maps: Int[Tensor, "B S H W"]) -> Int[Tensor, "B S H2 W2"]:
    """The maps with one pixel around them for what lies outside: background, or void where void touches the border.

    Crowds go on like void.
    """
    height, width = segment_maps.shape[-2:]
    rows = torch.arange(-1, height + 1, device=segment_maps.device).clamp(0, height - 1)
    columns = torch.arange(-1, width + 1, device=segment_maps.device).clamp(0, width - 1)
    framed = segment_maps.int()[..., rows[:, None], columns]
    inside = F.pad(framed.new_ones(height, width, dtype=torch.bool), (1, 1, 1, 1))
    return framed.where(inside | (framed <= VOID), BACKGROUND)


def read_segments(
    framed_maps: Int[Tensor, "B S H2 W2"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    num_segments: int,
) -> tuple[Float[Tensor, "N G P"], Float[Tensor, "N P"]]:
    """Every segment's mask at points shared by the segments of an image, and how far each point is known.

    Row n reads image `images[n]`. Equals bilinear sampling of the dense masks with zeros outside. G is `num_segments`;
    rows beyond an image's own segments are zero. The second value is the share of the point that lies neither on void
    nor on a crowd.
    """
    ids, weights = _bilinear_taps(framed_maps, points, images)
    # Rows 0..G-1 collect the segments, the last one all else.
    rows = torch.where(ids >= 0, ids, num_segments).flatten(1, 2).long()
    masks = weights.new_zeros(len(points), num_segments + 1, points.shape[1])
    masks.scatter_add_(1, rows, weights.unsqueeze(1).expand_as(ids).flatten(1, 2))
    return masks[:, :num_segments], ((ids[:, 0] >= BACKGROUND) * weights).sum(1)


def read_paired_segments(
    framed_maps: Int[Tensor, "B S H2 W2"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    segments: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
    """The mask of one segment per row at that row's own points, and how far each point is known to that segment.

    Row n reads segment `segments[n]`, of class `labels[n]`, of image `images[n]`.
    """
    ids, weights = _bilinear_taps(framed_maps, points, images)
    inside = (ids == segments[:, None, None, None]).any(1)  # a segment lies in one sheet
    return (inside * weights).sum(1), (known_to(labels, ids[:, 0]) * weights).sum(1)


def is_known(
    framed_maps: Int[Tensor, "B S H2 W2"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> Bool[Tensor, "N P"]:
    """Whether the pixel that each point lies in is known to segments of class `labels[n]`; row n: image `images[n]`."""
    sheets, height, width = framed_maps.shape[1:]
    # One axis at a time: products with a pair of numbers are several times slower.
    columns = (points[..., 0] * (width - 2)).int().clamp_(max=width - 3)
    rows = (points[..., 1] * (height - 2)).int().clamp_(max=height - 3)
    pixel = (rows + 1) * width + (columns + 1) + (images * (sheets * height * width)).int()[:, None]
    return known_to(labels, framed_maps.flatten().index_select(0, pixel.flatten()).view_as(pixel))


def known_to(labels: Int[Tensor, "N"], ids: Int[Tensor, "N *P"]) -> Bool[Tensor, "N *P"]:
    """Whether segments of these classes know what is at places with these ids: neither void nor a crowd of theirs."""
    crowds = (CROWD - labels).to(ids.dtype).view(-1, *[1] * (ids.dim() - 1))
    return (ids != VOID) & (ids != crowds)


def _bilinear_taps(
    framed_maps: Int[Tensor, "B S H2 W2"], points: Float[Tensor, "N P 2"], images: Int[Tensor, "N"]
) -> tuple[Int[Tensor, "N S 4 P"], Float[Tensor, "N 4 P"]]:
    """Ids in each sheet and bilinear weights of the four pixels around each point; row n reads image `images[n]`."""
    sheets, height, width = framed_maps.shape[1:]
    x_px = points[..., 0] * (width - 2) + 0.5  # in the framed map
    y_px = points[..., 1] * (height - 2) + 0.5
    left, top = x_px.floor(), y_px.floor()
    right_share, lower_share = x_px - left, y_px - top
    left_share, upper_share = 1 - right_share, 1 - lower_share
    weights = torch.stack(
        [left_share * upper_share, right_share * upper_share, left_share * lower_share, right_share * lower_share], 1
    )
    upper_left = top.int() * width + left.int()
    taps = torch.stack([upper_left, upper_left + 1, upper_left + width, upper_left + (width + 1)], 1)
    sheet = images[:, None] * sheets + torch.arange(sheets, device=images.device)  # N S
    pixel = taps.unsqueeze(1) + (sheet * (height * width)).int()[:, :, None, None]
    return framed_maps.flatten().index_select(0, pixel.flatten()).view_as(pixel), weights
