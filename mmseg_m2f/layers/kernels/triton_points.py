"""Masks at points on a GPU: sums for match costs, uncertain candidates, masks of matched pairs; without gradients.

`core.matching.mask_sums`, `core.points.pick_uncertain` and `core.targets.read_paired_segments` define what is computed
(PointRend, arXiv 1912.08193, section 3.1; Mask2Former, arXiv 2112.01527, section 3.3).

- Sums: a program serves some points of one layer and image. It reads the features at a block of points, multiplies them
  with the embeddings of all queries, reads the masks of all segments from the segment map, and adds up what the costs
  need. Neither logits, nor their probabilities, nor masks are ever stored.
- Products run on the tensor cores, each as three products of TF32 numbers, which is as exact as float32.
- Partial sums of the programs of one layer and image are added afterwards, always in the same order.

Where Triton is missing (it comes with the GPU builds of torch) the module can be imported, and nothing called.
"""

# ruff: noqa: ANN001, ANN202  (kernels: Triton finds the types in what they are called with)
from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.layers.kernels.triton_support import next_power_of_2
from mmseg_m2f.structures import BACKGROUND, CROWD, VOID, MaskSums

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

#: Points of a block, and channels that are multiplied at once.
_POINTS, _CHANNELS = 64, 32
_MOST_QUERIES, _MOST_SEGMENTS = 128, 64  # of one program; more are served by further ones
_LEAST = 16  # of rows and columns of a product
_WARPS = 8
#: Programs that keep a GPU busy; rows are split until there are so many.
_PROGRAMS = 1024
_BLOCK = 1024  # points of a program that reads single maps


def mask_sums(
    embeddings: Float[Tensor, "N Q C"],
    features: Float[Tensor, "B C H W"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    framed_maps: Int[Tensor, "B S H2 W2"],
    num_segments: int,
) -> MaskSums:
    """`core.matching.mask_sums` of the maps `embeddings[n] · features[images[n]]` at points in [0, 1).

    Embeddings and features may be in half precision; everything is computed in float32.
    """
    assert triton is not None, "triton_points was called without asking whether Triton is there"
    (rows, queries, channels), num_points = embeddings.shape, points.shape[1]
    _, _, height, width = features.shape
    slices, framed_height, framed_width = framed_maps.shape[1:]
    query_block = min(max(next_power_of_2(queries), _LEAST), _MOST_QUERIES)
    segment_block = min(max(next_power_of_2(num_segments), _LEAST), _MOST_SEGMENTS)
    query_blocks, segment_blocks = -(-queries // query_block), max(-(-num_segments // segment_block), 1)
    blocks = -(-num_points // _POINTS)
    splits = max(min(_PROGRAMS // max(rows * query_blocks * segment_blocks, 1), blocks), 1)
    pairs = points.new_empty(2, splits, rows, queries, num_segments)
    singles = points.new_empty(2, splits, rows, queries)
    masks = points.new_empty(splits, rows, num_segments + 1)
    if rows and queries:
        with torch.cuda.device_of(points):
            _mask_sums[rows, splits, query_blocks * segment_blocks](
                embeddings.contiguous(),
                features.permute(0, 2, 3, 1).contiguous(),
                points.contiguous(),
                images.contiguous(),
                framed_maps.contiguous(),
                pairs,
                singles,
                masks,
                num_points,
                height,
                width,
                slices,
                framed_height,
                framed_width,
                queries,
                num_segments,
                segment_blocks,
                -(-blocks // splits) * _POINTS,
                BACKGROUND=BACKGROUND,
                CHANNELS=channels,
                CHANNEL_BLOCK=min(max(next_power_of_2(channels), _LEAST), _CHANNELS),
                QUERY_BLOCK=query_block,
                SEGMENT_BLOCK=segment_block,
                POINTS=_POINTS,
                num_warps=_WARPS,
            )
    in_masks, everywhere, masks = pairs.sum(1), singles.sum(1), masks.sum(0)
    return MaskSums(in_masks[0], in_masks[1], everywhere[0], everywhere[1], masks[:, :-1], masks[:, -1])


def pick_uncertain(
    maps: Float[Tensor, "N H W"],
    candidates: Float[Tensor, "N S 2"],
    num_uncertain: int,
    *,
    framed_maps: Int[Tensor, "B Z H2 W2"],
    images: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> Float[Tensor, "N P 2"]:
    """The candidates whose logits are nearest to zero; those void for the label only if nothing else is left."""
    assert triton is not None, "triton_points was called without asking whether Triton is there"
    certainty = candidates.new_empty(candidates.shape[:2])
    if certainty.numel():
        with torch.cuda.device_of(maps):
            _certainty[-(-candidates.shape[1] // _BLOCK), len(maps)](
                maps.contiguous(),
                candidates.contiguous(),
                framed_maps.contiguous(),
                images.contiguous(),
                labels.contiguous(),
                certainty,
                candidates.shape[1],
                *maps.shape[1:],
                *framed_maps.shape[1:],
                VOID=VOID,
                CROWD=CROWD,
                BLOCK=_BLOCK,
            )
    kept = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
    return candidates.gather(1, kept.unsqueeze(-1).expand(-1, -1, 2))


def read_pairs(
    framed_maps: Int[Tensor, "B Z H2 W2"],
    points: Float[Tensor, "N P 2"],
    images: Int[Tensor, "N"],
    segments: Int[Tensor, "N"],
    labels: Int[Tensor, "N"],
) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N P"]]:
    """The mask of one segment per row at that row's points, and the validity weight of each point for it."""
    assert triton is not None, "triton_points was called without asking whether Triton is there"
    masks, validity = points.new_empty(points.shape[:2]), points.new_empty(points.shape[:2])
    if masks.numel():
        with torch.cuda.device_of(points):
            _read_pairs[-(-points.shape[1] // _BLOCK), len(points)](
                framed_maps.contiguous(),
                points.contiguous(),
                images.contiguous(),
                segments.contiguous(),
                labels.contiguous(),
                masks,
                validity,
                points.shape[1],
                *framed_maps.shape[1:],
                VOID=VOID,
                CROWD=CROWD,
                BLOCK=_BLOCK,
            )
    return masks, validity


# Pointers of the kernels point to contiguous tensors. Names in capitals are known when a kernel is compiled.
# `no_type_check` keeps tools that wrap functions away from these, which never run in Python.
if triton is not None:

    @triton.jit
    @no_type_check
    def _load_points(points, row, num_points, point, exists):
        place = points + (row.to(tl.int64) * num_points + point) * 2
        return tl.load(place, mask=exists, other=0.0), tl.load(place + 1, mask=exists, other=0.0)

    @triton.jit
    @no_type_check
    def _share(TAP: tl.constexpr, right, lower):
        """Bilinear weight of a pixel around a point: 0 upper left, 1 upper right, 2 lower left, 3 lower right."""
        across = right if TAP % 2 == 1 else 1 - right
        down = lower if TAP // 2 == 1 else 1 - lower
        return across * down

    @triton.jit
    @no_type_check
    def _is_valid(id, label, VOID: tl.constexpr, CROWD: tl.constexpr):
        return (id != VOID) & (id != CROWD - label)

    @triton.jit(
        do_not_specialize=[
            "num_points",
            "height",
            "width",
            "slices",
            "framed_height",
            "framed_width",
            "num_queries",
            "num_segments",
            "segment_blocks",
            "per_split",
        ]
    )
    @no_type_check
    def _mask_sums(
        embeddings,
        features,
        points,
        images,
        framed_maps,
        pairs,
        singles,
        masks,
        num_points,
        height,
        width,
        slices,
        framed_height,
        framed_width,
        num_queries,
        num_segments,
        segment_blocks,
        per_split,
        BACKGROUND: tl.constexpr,
        CHANNELS: tl.constexpr,
        CHANNEL_BLOCK: tl.constexpr,
        QUERY_BLOCK: tl.constexpr,
        SEGMENT_BLOCK: tl.constexpr,
        POINTS: tl.constexpr,
    ):
        row = tl.program_id(0)
        split = tl.program_id(1)
        query = (tl.program_id(2) // segment_blocks) * QUERY_BLOCK + tl.arange(0, QUERY_BLOCK)
        segment = (tl.program_id(2) % segment_blocks) * SEGMENT_BLOCK + tl.arange(0, SEGMENT_BLOCK)
        is_query = query < num_queries
        is_segment = segment < num_segments
        image = tl.load(images + row).to(tl.int64)
        features += image * height * width * CHANNELS
        framed_maps += image * slices * framed_height * framed_width
        embeddings += row.to(tl.int64) * num_queries * CHANNELS

        logits_in_masks = tl.zeros([QUERY_BLOCK, SEGMENT_BLOCK], tl.float32)
        probs_in_masks = tl.zeros([QUERY_BLOCK, SEGMENT_BLOCK], tl.float32)
        softplus_sum = tl.zeros([QUERY_BLOCK], tl.float32)
        probs_sum = tl.zeros([QUERY_BLOCK], tl.float32)
        mask_sum = tl.zeros([SEGMENT_BLOCK], tl.float32)
        validity_sum = tl.sum(tl.zeros([POINTS], tl.float32), 0)
        first = split * per_split
        for start in range(first, tl.minimum(first + per_split, num_points), POINTS):
            point = start + tl.arange(0, POINTS)
            exists = point < num_points
            x, y = _load_points(points, row, num_points, point, exists)

            column = x * width - 0.5
            line = y * height - 0.5
            left = tl.floor(column)
            top = tl.floor(line)
            right_share = column - left
            lower_share = line - top
            logits = tl.zeros([QUERY_BLOCK, POINTS], tl.float32)
            for channel_start in range(0, CHANNELS, CHANNEL_BLOCK):
                channel = channel_start + tl.arange(0, CHANNEL_BLOCK)
                is_channel = channel < CHANNELS
                read = tl.zeros([POINTS, CHANNEL_BLOCK], tl.float32)
                for tap in tl.static_range(4):
                    tap_column = left.to(tl.int32) + tap % 2
                    tap_line = top.to(tl.int32) + tap // 2
                    inside = exists & (tap_column >= 0) & (tap_column < width) & (tap_line >= 0) & (tap_line < height)
                    cell = (
                        features + (tap_line * width + tap_column).to(tl.int64)[:, None] * CHANNELS + channel[None, :]
                    )
                    values = tl.load(cell, mask=inside[:, None] & is_channel[None, :], other=0.0).to(tl.float32)
                    read += _share(tap, right_share, lower_share)[:, None] * values
                embedding = tl.load(
                    embeddings + query[:, None] * CHANNELS + channel[None, :],
                    mask=is_query[:, None] & is_channel[None, :],
                    other=0.0,
                ).to(tl.float32)
                logits += tl.dot(embedding, tl.trans(read), input_precision="tf32x3")

            column = x * (framed_width - 2) + 0.5  # one further in the framed map
            line = y * (framed_height - 2) + 0.5
            left = tl.floor(column)
            top = tl.floor(line)
            right_share = column - left
            lower_share = line - top
            mask = tl.zeros([POINTS, SEGMENT_BLOCK], tl.float32)
            validity = tl.zeros([POINTS], tl.float32)
            for tap in tl.static_range(4):
                weight = tl.where(exists, _share(tap, right_share, lower_share), 0.0)
                pixel = (top.to(tl.int32) + tap // 2) * framed_width + left.to(tl.int32) + tap % 2
                for number in range(slices):
                    id = tl.load(framed_maps + number * framed_height * framed_width + pixel, mask=exists, other=0)
                    mask += tl.where(id[:, None] == segment[None, :], weight[:, None], 0.0)
                    validity += tl.where((id >= BACKGROUND) & (number == 0), weight, 0.0)

            small = tl.exp(-tl.abs(logits))  # never overflows
            softplus = tl.maximum(logits, 0.0) + tl.log(1 + small)
            probs = tl.where(logits >= 0, 1.0, small) / (1 + small)
            logits_in_masks += tl.dot(logits, mask, input_precision="tf32x3")
            probs_in_masks += tl.dot(probs, mask, input_precision="tf32x3")
            softplus_sum += tl.sum(softplus * validity[None, :], 1)
            probs_sum += tl.sum(probs * validity[None, :], 1)
            mask_sum += tl.sum(mask, 0)
            validity_sum += tl.sum(validity, 0)

        rows = tl.num_programs(0)
        splits = tl.num_programs(1)
        at = (split * rows + row).to(tl.int64)
        stride = splits.to(tl.int64) * rows * num_queries
        pair = (at * num_queries + query[:, None]) * num_segments + segment[None, :]
        is_pair = is_query[:, None] & is_segment[None, :]
        tl.store(pairs + pair, logits_in_masks, mask=is_pair)
        tl.store(pairs + stride * num_segments + pair, probs_in_masks, mask=is_pair)
        # Programs of other segments write the same values, as do those of other queries below.
        tl.store(singles + at * num_queries + query, softplus_sum, mask=is_query)
        tl.store(singles + stride + at * num_queries + query, probs_sum, mask=is_query)
        tl.store(masks + at * (num_segments + 1) + segment, mask_sum, mask=is_segment)
        tl.store(masks + at * (num_segments + 1) + num_segments, validity_sum)

    @triton.jit(do_not_specialize=["num_points", "height", "width", "slices", "framed_height", "framed_width"])
    @no_type_check
    def _certainty(
        maps,
        points,
        framed_maps,
        images,
        labels,
        certainty,
        num_points,
        height,
        width,
        slices,
        framed_height,
        framed_width,
        VOID: tl.constexpr,
        CROWD: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Absolute logits at candidates; infinite where the pixel is void for the label."""
        row = tl.program_id(1)
        point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        exists = point < num_points
        x, y = _load_points(points, row, num_points, point, exists)
        maps += row.to(tl.int64) * height * width
        column = x * width - 0.5
        line = y * height - 0.5
        left = tl.floor(column)
        top = tl.floor(line)
        value = tl.zeros([BLOCK], tl.float32)
        for tap in tl.static_range(4):
            tap_column = left.to(tl.int32) + tap % 2
            tap_line = top.to(tl.int32) + tap // 2
            inside = exists & (tap_column >= 0) & (tap_column < width) & (tap_line >= 0) & (tap_line < height)
            read = tl.load(maps + tap_line * width + tap_column, mask=inside, other=0.0).to(tl.float32)
            value += _share(tap, column - left, line - top) * read
        column = tl.minimum((x * (framed_width - 2)).to(tl.int32), framed_width - 3) + 1
        line = tl.minimum((y * (framed_height - 2)).to(tl.int32), framed_height - 3) + 1
        image = tl.load(images + row).to(tl.int64)
        framed_maps += image * slices * framed_height * framed_width
        id = tl.load(framed_maps + line * framed_width + column, mask=exists, other=VOID)
        valid = _is_valid(id, tl.load(labels + row).to(tl.int32), VOID, CROWD)
        found = tl.where(valid, tl.abs(value), float("inf"))
        tl.store(certainty + row.to(tl.int64) * num_points + point, found, mask=exists)

    @triton.jit(do_not_specialize=["num_points", "slices", "framed_height", "framed_width"])
    @no_type_check
    def _read_pairs(
        framed_maps,
        points,
        images,
        segments,
        labels,
        masks,
        validity,
        num_points,
        slices,
        framed_height,
        framed_width,
        VOID: tl.constexpr,
        CROWD: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(1)
        point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        exists = point < num_points
        x, y = _load_points(points, row, num_points, point, exists)
        image = tl.load(images + row).to(tl.int64)
        segment = tl.load(segments + row).to(tl.int32)
        label = tl.load(labels + row).to(tl.int32)
        framed_maps += image * slices * framed_height * framed_width
        column = x * (framed_width - 2) + 0.5  # one further in the framed map
        line = y * (framed_height - 2) + 0.5
        left = tl.floor(column)
        top = tl.floor(line)
        mask = tl.zeros([BLOCK], tl.float32)
        valid = tl.zeros([BLOCK], tl.float32)
        for tap in tl.static_range(4):
            weight = _share(tap, column - left, line - top)
            pixel = (top.to(tl.int32) + tap // 2) * framed_width + left.to(tl.int32) + tap % 2
            for number in range(slices):
                id = tl.load(framed_maps + number * framed_height * framed_width + pixel, mask=exists, other=VOID)
                mask += tl.where(id == segment, weight, 0.0)
                valid += tl.where(_is_valid(id, label, VOID, CROWD) & (number == 0), weight, 0.0)
        tl.store(masks + row.to(tl.int64) * num_points + point, mask, mask=exists)
        tl.store(validity + row.to(tl.int64) * num_points + point, valid, mask=exists)
