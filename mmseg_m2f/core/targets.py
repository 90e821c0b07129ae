"""Segments kept as one map per image, and read at points without ever making one mask per segment."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmseg_m2f.core.boxes import to_centres
from mmseg_m2f.core.points import find_corners
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures import BACKGROUND, CROWD, VOID, MaskTarget, TargetBatch


def stack_targets(targets: TargetBatch | Sequence[MaskTarget]) -> TargetBatch:
    """The targets of single images as a batch; a batch stays as it is.

    Costs a few operators per image. Readers of batches (`samples.read_targets`) do without.
    """
    if isinstance(targets, TargetBatch):
        return targets
    boxes = [target.boxes for target in targets if target.boxes is not None]
    return TargetBatch(
        pad_sequence([target.labels for target in targets], batch_first=True),
        frame(stack_segment_maps([target.segment_map for target in targets])),
        [target.num_segments for target in targets],
        [target.name for target in targets],
        pad_sequence(boxes, batch_first=True) if len(boxes) == len(targets) else None,
    )


def required_boxes(targets: TargetBatch) -> Float[Tensor, "B G 4"]:
    """The boxes of a batch.

    Raises:
        ValueError: there are none; names the images.
    """
    if targets.boxes is None:
        raise InvalidValueError(
            f"{', '.join(name or 'An image' for name in targets.names)}: expected boxes for the box costs and losses, "
            "got targets without. Train on objects with a MaskDetector, whose samples have gt_instances.bboxes."
        )
    return targets.boxes


def segments_of_label_maps(
    label_maps: Int[Tensor, "B H W"], num_segments: int, *, num_labels: int, ignore_index: int
) -> tuple[Int[Tensor, "B G"], Int[Tensor, "B 1 H W"]]:
    """One segment per class of each image, in the order of the classes: their classes, and the segment maps.

    The ignore index becomes `VOID`. Takes a fixed number of operators on the device; nothing is uploaded or
    read back.

    Args:
        label_maps: labels in [0, `num_labels`).
        num_segments: G, the largest number of classes in an image; classes beyond it are void. Labels are 0 where an
            image has fewer.
        num_labels: more than the classes and the ignore index.
    """
    pixels = label_maps.flatten(1)
    present = torch.zeros(len(pixels), num_labels, dtype=torch.int32, device=pixels.device).scatter_(1, pixels, 1)
    present[:, ignore_index : ignore_index + 1].zero_()
    segments = present.cumsum(1, dtype=torch.int32) - 1
    is_segment = present.bool() & (segments < num_segments)
    segment_maps = segments.where(is_segment, VOID).gather(1, pixels).view_as(label_maps).unsqueeze(1)
    # Column G collects what is no segment.
    columns = segments.where(is_segment, num_segments).long()
    classes = torch.arange(num_labels, device=pixels.device).expand_as(columns)
    labels = classes.new_zeros(len(pixels), num_segments + 1).scatter_(1, columns, classes)
    return labels[:, :num_segments], segment_maps


def boxes_of_segment_maps(segment_maps: Int[Tensor, "B S H W"], num_segments: int) -> Float[Tensor, "B G 4"]:
    """The box around each segment: centre x, centre y, width, height, as fractions of the map; zeros for no pixel.

    Takes a fixed number of operators, makes no dense masks and reads nothing back.

    Args:
        num_segments: G, at least as many as an image has.
    """
    height, width = segment_maps.shape[-2:]
    rows = segment_maps.long().where(segment_maps >= 0, num_segments).flatten(1)  # column G collects all else
    across = torch.arange(width, device=rows.device).expand(height, -1)
    down = torch.arange(height, device=rows.device)[:, None].expand(-1, width)
    ends = []
    for places in (across, down):
        source = places.expand_as(segment_maps).flatten(1)
        first = source.new_full((len(rows), num_segments + 1), max(height, width)).scatter_reduce(
            1, rows, source, "amin"
        )
        last = source.new_full((len(rows), num_segments + 1), -1).scatter_reduce(1, rows, source, "amax")
        ends.append((first[:, :num_segments], last[:, :num_segments] + 1))
    (left, right), (top, bottom) = ends
    # Divided per axis: a tensor of sizes would have to be uploaded.
    corners = torch.stack([left / width, top / height, right / width, bottom / height], -1)
    return to_centres(corners) * (right > 0).unsqueeze(-1)


def segments_of_masks(masks: Bool[Tensor, "G H W"]) -> Int[Tensor, "S H W"]:
    """The segment map of masks that may overlap: one slice if they do not, else as few as first fit finds.

    Pixels outside all masks are `BACKGROUND`. Without a mask there is one slice.
    """
    if len(masks) == 0:
        return masks.new_full((1, *masks.shape[1:]), BACKGROUND, dtype=torch.long)
    if masks.sum(0, dtype=torch.int32).max() <= 1:
        inside, segment = masks.max(0)
        return segment.where(inside, BACKGROUND).unsqueeze(0)
    slices: list[Tensor] = []
    for index, mask in enumerate(masks):
        fitting = [each for each in slices if not (each[mask] >= 0).any()]
        if not fitting:
            fitting = [masks.new_full(masks.shape[1:], BACKGROUND, dtype=torch.long)]
            slices += fitting
        fitting[0].masked_fill_(mask, index)
    return torch.stack(slices)


def stack_segment_maps(segment_maps: Sequence[Int[Tensor, "_ H W"]]) -> Int[Tensor, "B S H W"]:
    """The maps of a batch, with empty slices added where an image has fewer than another."""
    most = max(len(slices) for slices in segment_maps)
    padded = [F.pad(slices, (0, 0, 0, 0, 0, most - len(slices)), value=BACKGROUND) for slices in segment_maps]
    return torch.stack(padded)


def frame(segment_maps: Int[Tensor, "B S H W"]) -> Int[Tensor, "B S H2 W2"]:
    """The maps with one pixel around them for what lies outside: background, or void where void touches the border.

    Crowds continue outside as void does.
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
    """Every segment's mask at points shared by the segments of an image, and the validity weight of each point.

    Row n reads image `images[n]`. Equals bilinear sampling of the dense masks with zeros outside. G is `num_segments`;
    rows beyond an image's own segments are zero. The validity weight is the share of the point that is neither void nor
    crowd.
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
    """The mask of one segment per row at that row's own points, and the validity weight of each point for that segment.

    Row n reads segment `segments[n]`, of class `labels[n]`, of image `images[n]`.
    """
    ids, weights = _bilinear_taps(framed_maps, points, images)
    inside = (ids == segments[:, None, None, None]).any(1)  # a segment lies in one slice
    return (inside * weights).sum(1), (valid_for(labels, ids[:, 0]) * weights).sum(1)


def is_valid(
    framed_maps: Int[Tensor, "B S H2 W2"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> Bool[Tensor, "N P"]:
    """Whether the pixel of each point is valid for segments of class `labels[n]`; row n reads image `images[n]`."""
    slices, height, width = framed_maps.shape[1:]
    # One axis at a time: products with a pair of numbers are several times slower.
    columns = (points[..., 0] * (width - 2)).int().clamp_(max=width - 3)
    rows = (points[..., 1] * (height - 2)).int().clamp_(max=height - 3)
    pixel = (rows + 1) * width + (columns + 1) + (images * (slices * height * width)).int()[:, None]
    return valid_for(labels, framed_maps.flatten().index_select(0, pixel.flatten()).view_as(pixel))


def valid_for(labels: Int[Tensor, "N"], ids: Int[Tensor, "N *P"]) -> Bool[Tensor, "N *P"]:
    """Whether pixels with these ids count for segments of these classes: neither void nor a crowd of the same class."""
    crowds = (CROWD - labels).to(ids.dtype).view(-1, *[1] * (ids.dim() - 1))
    return (ids != VOID) & (ids != crowds)


def _bilinear_taps(
    framed_maps: Int[Tensor, "B S H2 W2"], points: Float[Tensor, "N P 2"], images: Int[Tensor, "N"]
) -> tuple[Int[Tensor, "N S 4 P"], Float[Tensor, "N 4 P"]]:
    """Ids in each slice and bilinear weights of the four pixels around each point; row n reads image `images[n]`."""
    slices, height, width = framed_maps.shape[1:]
    # In the framed map, whose pixels are one further.
    x_px, y_px = points[..., 0] * (width - 2) + 0.5, points[..., 1] * (height - 2) + 0.5
    left, top, weights = find_corners(x_px, y_px, dim=1)
    upper_left = top.int() * width + left.int()
    taps = torch.stack([upper_left, upper_left + 1, upper_left + width, upper_left + (width + 1)], 1)
    first = images[:, None] * slices + torch.arange(slices, device=images.device)  # N S
    pixel = taps.unsqueeze(1) + (first * (height * width)).int()[:, :, None, None]
    return framed_maps.flatten().index_select(0, pixel.flatten()).view_as(pixel), weights
