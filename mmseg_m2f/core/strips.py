"""Mask logits at the size of the result, computed for some rows at a time.

A row of a bilinear resize needs two rows of its source, so a strip of rows is resized alone: columns by
`F.interpolate`, rows by the arithmetic of its kernel. On processors with a fused multiply-add the values are equal to
those of resizing all rows, bit for bit. They are equal up to rounding on others, below 128 columns (PyTorch takes
another kernel), and in half precision (computed in float32 here).
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

_CPU_MB = 64
_OTHER_MB = 1024
_SHARE_OF_FREE = 4  # a quarter of the memory that is free on a card


class Resizing(NamedTuple):
    """How the mask logits of one image get to the size of its result; each is (height, width).

    They are resized to the `canvas`, the padded input of the network; its upper left part `crop` is the image; and
    that is resized to the `size` of the result.
    """

    canvas: tuple[int, int]
    crop: tuple[int, int]
    size: tuple[int, int]


class RowResize:
    """`postprocess.resize_maps` from one size, (height, width), to another, for some rows of the result.

    Nothing is copied from the host: which rows of the source are needed is computed on the host and again on the
    device, by the same arithmetic.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int], device: torch.device) -> None:
        self._source, self._target, self._device = source, target, device
        self._identity = source == target
        self._scale = float(np.float32(source[0]) / np.float32(target[0]))

    def source_rows(self, rows: slice) -> slice:
        """The rows of the source that these rows of the result need."""
        if self._identity:
            return rows
        if rows == slice(0, self._target[0]):
            return slice(0, self._source[0])
        last = min(self._above(rows.stop - 1) + 1, self._source[0] - 1)
        return slice(self._above(rows.start), last + 1)

    def __call__(self, maps: Float[Tensor, "B C h w"], rows: slice) -> Float[Tensor, "B C H W"]:
        """Some rows of the result; `maps` are the `source_rows` of the source."""
        if self._identity:
            return maps
        if rows == slice(0, self._target[0]):
            return F.interpolate(maps, self._target, mode="bilinear")
        wide = F.interpolate(maps, (maps.shape[2], self._target[1]), mode="bilinear")
        start = self._above(rows.start)
        all_above, all_below, all_weights = self._tables
        weight = all_weights[rows, None]
        # In the kernels' order: above · (1 - weight) is added to the rounded below · weight.
        below = wide.index_select(2, all_below[rows] - start).mul_(weight)
        return below.addcmul_(wide.index_select(2, all_above[rows] - start), 1 - weight)

    def _above(self, row: int) -> int:
        # Rounded to float32 once, as by a fused multiply-add.
        position = float(np.float32(self._scale * (row + 0.5) - 0.5))
        return min(int(max(position, 0.0)), self._source[0] - 1)

    @cached_property
    def _tables(self) -> tuple[Int[Tensor, "H"], Int[Tensor, "H"], Float[Tensor, "H"]]:
        """For each row of the result the source's row above it, the one below it, and the weight of that."""
        numbers = torch.arange(self._target[0], dtype=torch.float64, device=self._device)
        positions = (self._scale * (numbers + 0.5) - 0.5).float().clamp(min=0)
        above = positions.long().clamp(max=self._source[0] - 1)
        return above, (above + 1).clamp(max=self._source[0] - 1), (positions - above).clamp(max=1)


def default_memory_mb(device: torch.device) -> int:
    """Megabytes that post-processing may take by default: 64 on a CPU, a quarter of what is free on a card."""
    if device.type == "cpu":
        return _CPU_MB
    if device.type != "cuda":
        return _OTHER_MB
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(_CPU_MB, (free + unused) // (_SHARE_OF_FREE * 2**20))


def strips(
    mask_logits: Float[Tensor, "B Q h w"],
    resizing: Resizing,
    *,
    values_per_pixel: int,
    max_memory_mb: int | None,
    queries: Int[Tensor, "B N"] | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "B N H W"], Callable[[Tensor], Tensor]]]:
    """Rows of the result, the mask logits on the cropped canvas that they come from, and how to resize to those rows.

    The number of operators depends on the number of strips alone, and nothing is read back. Without images or values
    there is no strip.

    Args:
        values_per_pixel: how many float32 the caller needs at most for a pixel of one image; chooses the height of the
            strips.
        max_memory_mb: roughly; a strip has one row at least. None takes `default_memory_mb`.
        queries: whose mask logits, for each image; all by default.
    """
    if values_per_pixel == 0 or len(mask_logits) == 0:
        return
    canvas, crop, size = resizing
    if max_memory_mb is None:
        max_memory_mb = default_memory_mb(mask_logits.device)
    to_canvas = RowResize((mask_logits.shape[2], mask_logits.shape[3]), canvas, mask_logits.device)
    to_result = RowResize(crop, size, mask_logits.device)
    pixels_per_row = len(mask_logits) * max(canvas[1], size[1]) * max(1, crop[0] / size[0])
    height = max(1, int(max_memory_mb * 2**20 / (4 * values_per_pixel * pixels_per_row)))
    images = torch.arange(len(mask_logits), device=mask_logits.device)[:, None]
    for top in range(0, size[0], height):
        rows = slice(top, min(top + height, size[0]))
        canvas_rows = to_result.source_rows(rows)
        part = mask_logits[:, :, to_canvas.source_rows(canvas_rows)]
        part = part if queries is None else part[images, queries]
        processed = to_canvas(part.float(), canvas_rows)[..., : crop[1]]
        yield rows, processed, partial(to_result, rows=rows)
