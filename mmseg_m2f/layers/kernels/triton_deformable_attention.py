"""Multi-scale deformable attention on a GPU (arXiv 2010.04159, section 4.1), from raw projections to the weighted sum.

The GPU's counterpart of `fused_deformable_attention.cpp`: softmax, points and bilinear readings in one pass, nothing
stored for the backward pass, which computes weights and points again. All arithmetic is in float32.

Why it is built this way:

- A program serves one head of a block of consecutive queries in one image. Neighbouring queries read neighbouring
  cells, which then lie in the nearest cache; the D channels of a cell lie side by side and are read at once.
- Little is computed per number read, so waiting for memory is what costs. The four corners of a point do not depend
  on each other, and programs are small (128 threads), so that many wait at the same time.
- Sizes of levels are plain arguments of a launch, so nothing travels to the device and nobody waits. They are floats,
  for Triton compiles anew when an integer becomes 1 or a multiple of 16: one compiled kernel serves all image sizes.
- Cells of an image are counted in 32 bits; what is computed once per program has 64.
- Queries meet in the same cells, so the gradient of `value` is added up atomically, in float32: its last bits vary
  from run to run. Everything else is deterministic.

Where Triton is missing (it comes with the GPU builds of torch) the module can be imported, and nothing called.
"""

# ruff: noqa: ANN001, ANN202  (kernels: Triton finds the types in what they are called with)
from typing import Literal, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError
from mmseg_m2f.layers.kernels.triton_support import DTYPES, INT32, next_power_of_2

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

_WARPS = 4
#: Numbers per tile of queries and channels, or queries and readings: four for each thread. With eight, compiled code
#: exchanges each point through shared memory and waits for it.
_TILE = 512


def forward(
    value: Float[Tensor, "B N M D"],
    shapes: list[int],
    reference_points: Float[Tensor, "Nq 2"],
    offsets: Float[Tensor, "B Nq M L P 2"],
    logits: Float[Tensor, "B Nq M L*P"],
) -> Float[Tensor, "B Nq M*D"]:
    """Weighted sum of values read bilinearly around each query's reference point, in the dtype of `value`.

    Args:
        value: the maps of all levels, flattened and concatenated; float32, float16 or bfloat16.
        shapes: height, width of each level in turn.
        reference_points: xy in [0, 1].
        offsets: xy in cells of each level; outside a map, and where an offset is not finite, the value is zero.
        logits: how much each reading counts, before the softmax over all of a head.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: an image with more numbers than 32 bits can count.
    """
    inputs = [x.contiguous() for x in (value, reference_points, offsets, logits)]
    output = value.new_empty(*offsets.shape[:3], value.shape[-1])
    _launch("forward", inputs, [output], shapes)
    return output.flatten(2)


def backward(
    value: Float[Tensor, "B N M D"],
    shapes: list[int],
    reference_points: Float[Tensor, "Nq 2"],
    offsets: Float[Tensor, "B Nq M L P 2"],
    logits: Float[Tensor, "B Nq M L*P"],
    grad: Float[Tensor, "B Nq M*D"],
) -> tuple[Float[Tensor, "B N M D"], Float[Tensor, "B Nq M L P 2"], Float[Tensor, "B Nq M L*P"]]:
    """Gradients of value, offsets and logits, each in its dtype; `grad` is the one of the output.

    Raises:
        TypeError, ValueError: as `forward`.
    """
    inputs = [x.contiguous() for x in (value, reference_points, offsets, logits, grad)]
    grad_value = torch.zeros_like(inputs[0], dtype=torch.float32)
    grad_offsets, grad_logits = torch.empty_like(inputs[2]), torch.empty_like(inputs[3])
    _launch("backward", inputs, [grad_value, grad_offsets, grad_logits], shapes)
    return grad_value.to(value.dtype), grad_offsets, grad_logits


def _launch(
    function: Literal["forward", "backward"], inputs: list[Tensor], outputs: list[Tensor], shapes: list[int]
) -> None:
    assert triton is not None, "triton_deformable_attention was called without asking is_available"
    value, _, offsets, *_ = inputs
    for x in inputs:
        if x.dtype not in DTYPES:
            raise InvalidTypeError(
                f"triton_deformable_attention: expected float32, float16 or bfloat16, got {x.dtype}. "
                "Convert it, or call layers.deformable_attention.deformable_attention."
            )
    images, tokens, heads, channels = value.shape
    if tokens * heads * channels >= INT32:
        raise InvalidValueError(
            f"triton_deformable_attention: expected fewer than {INT32} values per image, got "
            f"{tokens * heads * channels}. Use smaller images."
        )
    queries, (levels, points) = offsets.shape[1], offsets.shape[3:5]
    channels_padded, readings_padded = next_power_of_2(channels), next_power_of_2(levels * points)
    block = max(_TILE // max(channels_padded, readings_padded), 1)
    kernel = {"forward": _forward, "backward": _backward}[function]
    with torch.cuda.device_of(value):
        kernel[heads * -(-queries // block), images](
            *inputs,
            *outputs,
            tuple(float(size) for size in shapes),
            tokens,
            queries,
            HEADS=heads,
            CHANNELS=channels,
            CHANNELS_PADDED=channels_padded,
            LEVELS=levels,
            POINTS=points,
            READINGS_PADDED=readings_padded,
            BLOCK=block,
            num_warps=_WARPS,
        )


# Pointers of the kernels point to contiguous tensors, laid out as in the signatures above. Names in capitals are known
# when a kernel is compiled. `no_type_check` keeps tools that wrap functions away from these, which never run in Python.
if triton is not None:

    @triton.jit
    @no_type_check
    def _start(reference_points, num_queries, HEADS: tl.constexpr, BLOCK: tl.constexpr):
        """Image and head of this program; which queries exist, their rows in a tensor `B Nq M ...`, their points."""
        image = tl.program_id(1).to(tl.int64)
        head = tl.program_id(0) % HEADS
        query = tl.program_id(0) // HEADS * BLOCK + tl.arange(0, BLOCK)
        exists = query < num_queries
        row = (image * num_queries + query) * HEADS + head
        x = tl.load(reference_points + 2 * query, mask=exists, other=0.0).to(tl.float32)
        y = tl.load(reference_points + 2 * query + 1, mask=exists, other=0.0).to(tl.float32)
        return image, head, exists, row, x, y

    @triton.jit
    @no_type_check
    def _softmax(logits, exists, READINGS: tl.constexpr, READINGS_PADDED: tl.constexpr):
        """Largest logit of each query, and the sum of all exponentials once it is subtracted."""
        reading = tl.arange(0, READINGS_PADDED)[None, :]
        mask = exists[:, None] & (reading < READINGS)
        all_logits = tl.load(logits[:, None] + reading, mask=mask, other=-float("inf")).to(tl.float32)
        all_logits = tl.where(exists[:, None], all_logits, 0.0)  # no 0 / 0 where nothing is
        largest = tl.max(all_logits, 1)
        return largest, tl.sum(tl.exp(all_logits - largest[:, None]), 1)

    @triton.jit
    @no_type_check
    def _read(offsets, logits, reading, exists, reference_x, reference_y, largest, total, width, height):
        """The position of a sampled value, and its weight.

        Gives weight; column and row of the cell left of and above the position; how far the position lies right of and
        below the centre of that cell; whether one of the four cells around the position can be inside. Where none can,
        or the position is not a number, it becomes 0, so that the conversion to integers is defined.
        """
        logit = tl.load(logits + reading, mask=exists, other=0.0).to(tl.float32)
        offset_x = tl.load(offsets + 2 * reading, mask=exists, other=0.0).to(tl.float32)
        offset_y = tl.load(offsets + 2 * reading + 1, mask=exists, other=0.0).to(tl.float32)
        x = reference_x * width + offset_x - 0.5
        y = reference_y * height + offset_y - 0.5
        near = exists & (x >= -1) & (y >= -1) & (x < width) & (y < height)
        x = tl.where(near, x, 0.0)
        y = tl.where(near, y, 0.0)
        left = tl.floor(x)
        top = tl.floor(y)
        weight = tl.exp(logit - largest) / total
        return weight, left.to(tl.int32), top.to(tl.int32), x - left, y - top, near

    @triton.jit
    @no_type_check
    def _corner(CORNER: tl.constexpr, left, top, right, below, near, rows, columns):
        """Token of a level, share and validity of one of the four cells around a position, in reading order."""
        column = left + CORNER % 2
        row = top + CORNER // 2
        share_x = right if CORNER % 2 == 1 else 1 - right
        share_y = below if CORNER // 2 == 1 else 1 - below
        inside = near & (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        return row * columns + column, share_x * share_y, inside

    @triton.jit(do_not_specialize=["num_tokens", "num_queries"])
    @no_type_check
    def _forward(
        value,
        reference_points,
        offsets,
        logits,
        output,
        shapes,
        num_tokens,
        num_queries,
        HEADS: tl.constexpr,
        CHANNELS: tl.constexpr,
        CHANNELS_PADDED: tl.constexpr,
        LEVELS: tl.constexpr,
        POINTS: tl.constexpr,
        READINGS_PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        READINGS: tl.constexpr = LEVELS * POINTS
        image, head, exists, row, reference_x, reference_y = _start(reference_points, num_queries, HEADS, BLOCK)
        offsets = offsets + row * (READINGS * 2)
        logits = logits + row * READINGS
        channel = tl.arange(0, CHANNELS_PADDED)[None, :]
        is_channel = channel < CHANNELS
        maps = value + (image * num_tokens * HEADS + head) * CHANNELS + channel
        largest, total = _softmax(logits, exists, READINGS, READINGS_PADDED)
        result = tl.zeros([BLOCK, CHANNELS_PADDED], tl.float32)
        first = 0
        for level in tl.static_range(LEVELS):
            height = shapes[2 * level]
            width = shapes[2 * level + 1]
            rows = tl.cast(height, tl.int32)
            columns = tl.cast(width, tl.int32)
            for point in range(POINTS):
                reading = level * POINTS + point
                weight, left, top, right, below, near = _read(
                    offsets, logits, reading, exists, reference_x, reference_y, largest, total, width, height
                )
                for CORNER in tl.static_range(4):
                    token, share, inside = _corner(CORNER, left, top, right, below, near, rows, columns)
                    cell = ((first + token) * (HEADS * CHANNELS))[:, None]
                    cells = tl.load(maps + cell, mask=inside[:, None] & is_channel, other=0.0).to(tl.float32)
                    result += (weight * share)[:, None] * cells
            first = first + rows * columns
        output = output + (row * CHANNELS)[:, None] + channel
        tl.store(output, result.to(output.dtype.element_ty), mask=exists[:, None] & is_channel)

    @triton.jit(do_not_specialize=["num_tokens", "num_queries"])
    @no_type_check
    def _backward(
        value,
        reference_points,
        offsets,
        logits,
        grad_output,
        grad_value,
        grad_offsets,
        grad_logits,
        shapes,
        num_tokens,
        num_queries,
        HEADS: tl.constexpr,
        CHANNELS: tl.constexpr,
        CHANNELS_PADDED: tl.constexpr,
        LEVELS: tl.constexpr,
        POINTS: tl.constexpr,
        READINGS_PADDED: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        READINGS: tl.constexpr = LEVELS * POINTS
        image, head, exists, row, reference_x, reference_y = _start(reference_points, num_queries, HEADS, BLOCK)
        offsets = offsets + row * (READINGS * 2)
        logits = logits + row * READINGS
        channel = tl.arange(0, CHANNELS_PADDED)[None, :]
        is_channel = channel < CHANNELS
        first_value = (image * num_tokens * HEADS + head) * CHANNELS
        maps = value + first_value + channel
        grad_maps = grad_value + first_value + channel
        largest, total = _softmax(logits, exists, READINGS, READINGS_PADDED)
        grads = grad_output + (row * CHANNELS)[:, None] + channel
        grad = tl.load(grads, mask=exists[:, None] & is_channel, other=0.0).to(tl.float32)
        # Kept until the end: the gradient of a logit needs all readings, and rows are written at once.
        index = tl.arange(0, READINGS_PADDED)[None, :]
        weights = tl.zeros([BLOCK, READINGS_PADDED], tl.float32)
        agreements = tl.zeros([BLOCK, READINGS_PADDED], tl.float32)
        grads_x = tl.zeros([BLOCK, READINGS_PADDED], tl.float32)
        grads_y = tl.zeros([BLOCK, READINGS_PADDED], tl.float32)
        first = 0
        for level in tl.static_range(LEVELS):
            height = shapes[2 * level]
            width = shapes[2 * level + 1]
            rows = tl.cast(height, tl.int32)
            columns = tl.cast(width, tl.int32)
            for point in range(POINTS):
                reading = level * POINTS + point
                weight, left, top, right, below, near = _read(
                    offsets, logits, reading, exists, reference_x, reference_y, largest, total, width, height
                )
                agreement = tl.zeros([BLOCK], tl.float32)
                grad_x = tl.zeros([BLOCK], tl.float32)
                grad_y = tl.zeros([BLOCK], tl.float32)
                for CORNER in tl.static_range(4):
                    token, share, inside = _corner(CORNER, left, top, right, below, near, rows, columns)
                    cell = ((first + token) * (HEADS * CHANNELS))[:, None]
                    mask = inside[:, None] & is_channel
                    cells = tl.load(maps + cell, mask=mask, other=0.0).to(tl.float32)
                    tl.atomic_add(grad_maps + cell, (weight * share)[:, None] * grad, mask=mask, sem="relaxed")
                    dot = tl.sum(grad * cells, 1)
                    agreement += share * dot
                    slope_x = below if CORNER // 2 == 1 else 1 - below
                    slope_y = right if CORNER % 2 == 1 else 1 - right
                    grad_x += (slope_x if CORNER % 2 == 1 else -slope_x) * dot
                    grad_y += (slope_y if CORNER // 2 == 1 else -slope_y) * dot
                weights = tl.where(index == reading, weight[:, None], weights)
                agreements = tl.where(index == reading, agreement[:, None], agreements)
                grads_x = tl.where(index == reading, (weight * grad_x)[:, None], grads_x)
                grads_y = tl.where(index == reading, (weight * grad_y)[:, None], grads_y)
            first = first + rows * columns
        mask = exists[:, None] & (index < READINGS)
        mean = tl.sum(weights * agreements, 1)
        logit_grads = weights * (agreements - mean[:, None])
        grad_logits = grad_logits + (row * READINGS)[:, None] + index
        tl.store(grad_logits, logit_grads.to(grad_logits.dtype.element_ty), mask=mask)
        grad_offsets = grad_offsets + (row * (READINGS * 2))[:, None] + 2 * index
        tl.store(grad_offsets, grads_x.to(grad_offsets.dtype.element_ty), mask=mask)
        tl.store(grad_offsets + 1, grads_y.to(grad_offsets.dtype.element_ty), mask=mask)
