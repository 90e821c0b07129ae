"""Label maps on a GPU, from class and mask logits in one pass (arXiv 2107.06278, section 3.4).

The GPU's counterpart of `core.results.semantic_labels`: for each pixel of the result the mask logits of all queries are
resized, turned into probabilities and multiplied with the class probabilities, and the best class is kept. Neither the
resized masks nor the class scores are ever stored, so the result needs no memory besides itself.

Why it is built this way:

- A program serves a block of consecutive pixels of one image. Mask logits lie with the queries side by side, so that
  the four cells around a pixel are read at once for all queries.
- Scores are resized by resizing mask probabilities: both are linear, and the probabilities are at hand.
- Classes are multiplied a few at a time with all probabilities of a block, on the tensor cores where the precision of
  products that the user has chosen (`torch.set_float32_matmul_precision`) allows it.
- Scales are plain arguments of a launch: nothing travels to the device, and one compiled kernel serves all sizes.

Where Triton is missing (it comes with the GPU builds of torch) the module can be imported, and nothing called.
"""

# ruff: noqa: ANN001, ANN202  (kernels: Triton finds the types in what they are called with)
from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.layers.kernels.triton_support import DTYPES, INT32, next_power_of_2

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

#: Mask probabilities of a program: pixels times queries; 32 for each of its threads.
_TILE = 8192
_WARPS = 8
#: Class probabilities that are multiplied at once: classes times queries, in shared memory.
_VOTES = 8192
_STAGES = 1  # of the loop over the classes; more take shared memory from other programs
_LEAST = 16  # of rows and columns of a product
_MOST_QUERIES = 512


def can_serve(mask_logits: Float[Tensor, "B Q h w"]) -> bool:
    """Whether the kernel takes mask logits of this dtype, with so many queries."""
    return mask_logits.dtype in DTYPES and 0 < mask_logits.shape[1] <= _MOST_QUERIES


def label_maps(
    class_probs: Float[Tensor, "B Q K"],
    mask_logits: Float[Tensor, "B Q h w"],
    resizing: Resizing,
    *,
    resize_scores: bool = False,
) -> Int[Tensor, "B H W"]:
    """The class with the highest score of each pixel, the first of equals; class 0 where scores are not numbers.

    Args:
        class_probs: without "no object"; computed in float32.
        mask_logits: as predicted, at any resolution; float32, float16 or bfloat16.
        resize_scores: resize class scores from the crop to the result's size instead of mask logits.

    Raises:
        TypeError: mask logits of another dtype.
        ValueError: more than 512 queries, or an image with more mask logits than 32 bits can count.
    """
    assert triton is not None, "triton_label_maps was called without asking is_available"
    if mask_logits.dtype not in DTYPES:
        raise TypeError(
            f"triton_label_maps: expected float32, float16 or bfloat16, got {mask_logits.dtype}. Convert it, or call "
            "core.results.semantic_labels."
        )
    images, queries, height, width = mask_logits.shape
    if not can_serve(mask_logits) or queries * height * width >= INT32:
        raise ValueError(
            f"triton_label_maps: expected 1 to {_MOST_QUERIES} queries and fewer than {INT32} mask logits per image, "
            f"got {queries} and {queries * height * width}. Call core.results.semantic_labels."
        )
    canvas, crop, size = resizing
    labels = torch.empty(images, *size, dtype=torch.long, device=mask_logits.device)
    votes = class_probs.float().transpose(1, 2).contiguous()  # B K Q
    cells = mask_logits.permute(0, 2, 3, 1).contiguous()  # B h w Q
    queries_padded = max(next_power_of_2(queries), _LEAST)
    classes = votes.shape[1]
    pixels = max(_TILE // queries_padded, _LEAST)
    with torch.cuda.device_of(mask_logits):
        _label_maps[-(-size[0] * size[1] // pixels), images](
            votes,
            cells,
            labels,
            height,
            width,
            height / canvas[0],
            width / canvas[1],
            crop[0],
            crop[1],
            crop[0] / size[0],
            crop[1] / size[1],
            size[0],
            size[1],
            classes,
            QUERIES=queries,
            QUERIES_PADDED=queries_padded,
            CLASS_CHUNK=max(min(next_power_of_2(classes), _VOTES // queries_padded), _LEAST),
            PIXELS=pixels,
            CORNERS=1 if crop == size else 4,
            RESIZE_SCORES=resize_scores,
            PRECISION="tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32",
            num_warps=_WARPS,
            num_stages=_STAGES,
        )
    return labels


# Pointers of the kernels point to contiguous tensors. Names in capitals are known when a kernel is compiled.
# `no_type_check` keeps tools that wrap functions away from these, which never run in Python.
if triton is not None:

    @triton.jit
    @no_type_check
    def _source(position, scale, size):
        """Where a row or column of a result lies in its source: the cell before it, the one after, the share of that.

        The arithmetic of PyTorch's bilinear kernel, corners not aligned.
        """
        x = tl.maximum(scale * (position.to(tl.float32) + 0.5) - 0.5, 0.0)
        before = tl.minimum(x.to(tl.int32), size - 1)
        after = tl.minimum(before + 1, size - 1)
        return before, after, tl.minimum(x - before.to(tl.float32), 1.0)

    @triton.jit
    @no_type_check
    def _cell(cells, row, column, width, exists, query, is_query, QUERIES: tl.constexpr):
        """Mask logits of all queries in one cell for each pixel."""
        first = ((row * width + column) * QUERIES)[:, None]
        return tl.load(cells + first + query, mask=exists[:, None] & is_query, other=0.0).to(tl.float32)

    @triton.jit
    @no_type_check
    def _logits(cells, row, column, height, width, scale_y, scale_x, exists, query, is_query, QUERIES: tl.constexpr):
        """Mask logits of all queries at pixels of the canvas."""
        top, bottom, below = _source(row, scale_y, height)
        left, right, beside = _source(column, scale_x, width)
        a = _cell(cells, top, left, width, exists, query, is_query, QUERIES)
        b = _cell(cells, top, right, width, exists, query, is_query, QUERIES)
        upper = (1 - beside)[:, None] * a + beside[:, None] * b
        a = _cell(cells, bottom, left, width, exists, query, is_query, QUERIES)
        b = _cell(cells, bottom, right, width, exists, query, is_query, QUERIES)
        lower = (1 - beside)[:, None] * a + beside[:, None] * b
        return (1 - below)[:, None] * upper + below[:, None] * lower

    @triton.jit
    @no_type_check
    def _sigmoid(x):
        small = tl.exp(-tl.abs(x))  # never overflows
        return tl.where(x >= 0, 1.0, small) / (1 + small)

    @triton.jit(
        do_not_specialize=[
            "height",
            "width",
            "crop_height",
            "crop_width",
            "result_height",
            "result_width",
            "num_classes",
        ]
    )
    @no_type_check
    def _label_maps(
        votes,
        cells,
        labels,
        height,
        width,
        canvas_scale_y,
        canvas_scale_x,
        crop_height,
        crop_width,
        result_scale_y,
        result_scale_x,
        result_height,
        result_width,
        num_classes,
        QUERIES: tl.constexpr,
        QUERIES_PADDED: tl.constexpr,
        CLASS_CHUNK: tl.constexpr,
        PIXELS: tl.constexpr,
        CORNERS: tl.constexpr,
        RESIZE_SCORES: tl.constexpr,
        PRECISION: tl.constexpr,
    ):
        image = tl.program_id(1).to(tl.int64)
        num_pixels = result_height * result_width
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        exists = pixel < num_pixels
        row = pixel // result_width
        column = pixel % result_width
        query = tl.arange(0, QUERIES_PADDED)[None, :]
        is_query = query < QUERIES
        cells = cells + image * height * width * QUERIES
        votes = votes + image * num_classes * QUERIES

        probs = tl.zeros([PIXELS, QUERIES_PADDED], tl.float32)
        if CORNERS == 1:
            values = _logits(
                cells,
                row,
                column,
                height,
                width,
                canvas_scale_y,
                canvas_scale_x,
                exists,
                query,
                is_query,
                QUERIES,
            )
            probs = _sigmoid(values)
        else:
            top, bottom, below = _source(row, result_scale_y, crop_height)
            left, right, beside = _source(column, result_scale_x, crop_width)
            for corner in tl.static_range(4):
                y = bottom if corner // 2 == 1 else top
                x = right if corner % 2 == 1 else left
                share_y = below if corner // 2 == 1 else 1 - below
                share_x = beside if corner % 2 == 1 else 1 - beside
                values = _logits(
                    cells, y, x, height, width, canvas_scale_y, canvas_scale_x, exists, query, is_query, QUERIES
                )
                if RESIZE_SCORES:
                    values = _sigmoid(values)
                probs += (share_y * share_x)[:, None] * values
            if not RESIZE_SCORES:
                probs = _sigmoid(probs)
        probs = tl.where(is_query, probs, 0.0)

        best = tl.full([PIXELS], -float("inf"), tl.float32)
        label = tl.zeros([PIXELS], tl.int32)
        for first in range(0, num_classes, CLASS_CHUNK):
            number = first + tl.arange(0, CLASS_CHUNK)
            is_class = number < num_classes
            vote = tl.load(votes + number[:, None] * QUERIES + query, mask=is_class[:, None] & is_query, other=0.0)
            scores = tl.dot(probs, tl.trans(vote), input_precision=PRECISION)
            scores = tl.where(is_class[None, :], scores, -float("inf"))
            highest, which = tl.max(scores, 1, return_indices=True)
            better = highest > best
            label = tl.where(better, first + which, label)
            best = tl.where(better, highest, best)
        tl.store(labels + image * num_pixels + pixel, label.to(tl.int64), mask=exists)
