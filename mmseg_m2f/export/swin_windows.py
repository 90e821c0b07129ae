"""Shifted windows of Swin (arXiv 2103.14030, section 3.2) for any image size, in the place of mmseg's and mmdet's code.

That code reshapes padded maps into windows, writes the regions of the attention mask by slices, asks whether there is
padding, and computes the number of images as a float: each makes a condition on sizes, which an exported program
cannot hold. Here tokens are read by their index, once into the windows and once back; nothing has to divide. The
numbers are the same.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SWIN = ("mmseg.models.backbones.swin", "mmdet.models.backbones.swin")
#: Added to attention logits of tokens that lie in different parts of the image.
_APART = -100.0


@contextmanager
def exportable_windows() -> Iterator[None]:
    """Replace the shifted windows and the merging of patches, for the time being."""
    with ExitStack() as stack:
        for name in _SWIN:
            if name in sys.modules:
                module = sys.modules[name]
                stack.enter_context(mock.patch.object(module.ShiftWindowMSA, "forward", _attend_in_windows))
                stack.enter_context(mock.patch.object(module.PatchMerging, "forward", _merge_patches))
        yield


def _attend_in_windows(self: Any, query: Float[Tensor, "B L C"], hw_shape: tuple[int, int]) -> Float[Tensor, "B L C"]:  # noqa: ANN401
    """`ShiftWindowMSA.forward`; W windows of P = side² cells."""
    height, width = hw_shape
    side, shift = self.window_size, self.shift_size
    rows, columns = (height + side - 1) // side, (width + side - 1) // side
    row, column = _cells_of_windows(rows, columns, side, query)
    part = 3 * _part(row, rows * side, side, shift) + _part(column, columns * side, side, shift)
    row, column = _roll(row, rows * side, shift), _roll(column, columns * side, shift)
    outside = (row >= height) | (column >= width)
    source = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
    windows = query[:, source].masked_fill(outside.unsqueeze(-1), 0)  # B W P C
    apart = part.unsqueeze(2) != part.unsqueeze(1) if shift > 0 else None
    attended = _attend(self.w_msa, windows, apart).flatten(1, 2)
    row = _roll(torch.arange(height, device=query.device).unsqueeze(1), rows * side, -shift)
    column = _roll(torch.arange(width, device=query.device), columns * side, -shift)
    window = (row // side) * columns + column // side
    place = window * side**2 + (row % side) * side + column % side  # H W
    return self.drop(attended[:, place].flatten(1, 2))


def _cells_of_windows(
    rows: int, columns: int, side: int, like: Tensor
) -> tuple[Int[Tensor, "W P"], Int[Tensor, "W P"]]:
    """Row and column of each cell of each window in the padded map."""
    window = _numbers(rows * columns, like).unsqueeze(1)
    cell = torch.arange(side**2, device=like.device)
    row = window // columns
    return row * side + cell // side, (window - row * columns) * side + cell % side


def _numbers(count: int, like: Tensor) -> Int[Tensor, " N"]:
    """0, 1, ... up to a number of windows or of rows.

    An exported program for any size gets the length as a number of its own (from `nonzero`), not as a term of the
    image's sizes: those of the last stage are terms of terms of terms, and comparing them makes tracing endless.
    """
    if isinstance(count, int):
        return torch.arange(count, device=like.device)
    numbers = torch.ones(count, dtype=torch.bool, device=like.device).nonzero().squeeze(1)
    torch._check(numbers.shape[0] < 2**31)  # else the program has a bound that ONNX cannot write
    return numbers


def _roll(cells: Int[Tensor, "..."], length: int, shift: int) -> Int[Tensor, "..."]:
    """`(cells + shift) % length`, whose remainder ONNX's exporter does not write for a length that is unknown."""
    moved = cells + shift
    return moved + length * ((moved < 0).long() - (moved >= length).long())


def _part(cells: Int[Tensor, "W P"], length: int, side: int, shift: int) -> Int[Tensor, "W P"]:
    """Which part of a rolled axis each cell is in: before the last window, its first cells, or those rolled in."""
    return (cells >= length - side).long() + (cells >= length - shift).long()


def _attend(self: Any, x: Float[Tensor, "B W P C"], apart: Bool[Tensor, "W P P"] | None) -> Float[Tensor, "B W P C"]:  # noqa: ANN401
    """`WindowMSA.forward` with an axis of windows, and the mask as bits."""
    query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)  # B W M P d
    logits = (query * self.scale) @ key.transpose(-2, -1)
    bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # M P P
    logits = logits + bias
    if apart is not None:
        logits = logits + _APART * apart.to(logits.dtype).unsqueeze(1)
    weights = self.attn_drop(self.softmax(logits))
    return self.proj_drop(self.proj((weights @ value).transpose(2, 3).flatten(3)))


def _merge_patches(
    self: Any,  # noqa: ANN401
    x: Float[Tensor, "B L C"],
    input_size: tuple[int, int],
) -> tuple[Float[Tensor, "B L2 C2"], tuple[int, int]]:
    """`PatchMerging.forward` of Swin: neighbours side by side, zeros beyond the edges."""
    (height, width), (high, wide), (down, right) = input_size, self.sampler.kernel_size, self.sampler.stride
    row = _numbers((height + down - 1) // down, x)[:, None, None] * down
    column = _numbers((width + right - 1) // right, x)[:, None] * right
    rows, columns = row.shape[0], column.shape[0]
    cell = torch.arange(high * wide, device=x.device)
    row, column = row + cell // wide, column + cell % wide
    outside = (row >= height) | (column >= width)
    source = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)  # rows, columns, P
    patches = x[:, source].masked_fill(outside.unsqueeze(-1), 0).transpose(3, 4).flatten(3).flatten(1, 2)
    return self.reduction(self.norm(patches) if self.norm else patches), (rows, columns)
