"""Shifted windows of Swin (arXiv 2103.14030, section 3.2) for any image size, in the place of mmseg's and mmdet's code.

That code writes the regions of the attention mask by slices, asks whether there is padding, and computes the number of
images as a float: each fixes the sizes of the example in an exported program. The numbers are the same.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_MODULES = ("mmseg.models.backbones.swin", "mmdet.models.backbones.swin")
#: Added to attention logits of tokens that lie in different parts of the image.
_APART = -100.0


@contextmanager
def exportable_windows() -> Iterator[None]:
    """Replace the shifted windows and the merging of patches, for the time being."""
    with ExitStack() as stack:
        for name in _MODULES:
            if name in sys.modules:
                stack.enter_context(mock.patch.object(sys.modules[name].ShiftWindowMSA, "forward", _attend_in_windows))
        stack.enter_context(mock.patch.object(F, "unfold", unfold_patches))
        yield


def _attend_in_windows(self: Any, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:  # noqa: ANN401
    """`ShiftWindowMSA.forward`."""
    height, width = hw_shape
    side, shift = self.window_size, self.shift_size
    rows, columns = (height + side - 1) // side, (width + side - 1) // side  # known to divide the padded sizes
    tokens = query.unflatten(1, (height, width))  # B H W C
    tokens = F.pad(tokens, (0, 0, 0, columns * side - width, 0, rows * side - height))
    mask = None
    if shift > 0:
        tokens = torch.roll(tokens, (-shift, -shift), (1, 2))
        parts = 3 * _parts(rows, side, shift, query)[:, None] + _parts(columns, side, shift, query)
        windows = (
            parts.unflatten(1, (columns, side)).unflatten(0, (rows, side)).transpose(1, 2).flatten(2).flatten(0, 1)
        )
        apart = windows.unsqueeze(1) != windows.unsqueeze(2)
        mask = apart.to(query.dtype) * _APART
    windows = tokens.unflatten(2, (columns, side)).unflatten(1, (rows, side))  # B r s c s C
    windows = windows.transpose(2, 3).flatten(3, 4).flatten(0, 2)
    attended = self.w_msa(windows, mask=mask)
    merged = attended.unflatten(1, (side, side)).unflatten(0, (query.shape[0], rows, columns))
    tokens = merged.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    if shift > 0:
        tokens = torch.roll(tokens, (shift, shift), (1, 2))
    return self.drop(tokens[:, :height, :width].flatten(1, 2))


def _parts(num_windows: int, side: int, shift: int, like: Tensor) -> Tensor:
    """Which part of a rolled axis each cell is in: before the last window, its first cells, or those rolled in."""
    length = num_windows * side
    cells = torch.arange(length, device=like.device)
    return (cells >= length - side).long() + (cells >= length - shift).long()


def unfold_patches(
    input: Float[Tensor, "B C H W"],
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    stride: int | tuple[int, int] = 1,
) -> Float[Tensor, "B D N"]:
    """`F.unfold` of patches side by side; others stay torch's."""
    kernel, dilations, paddings, strides = (
        tuple(x) if isinstance(x, Sequence) else (x, x) for x in (kernel_size, dilation, padding, stride)
    )
    if strides != kernel or dilations != (1, 1) or paddings != (0, 0):
        return torch._C._nn.im2col(input, kernel, dilations, paddings, strides)
    height, width = kernel
    rows, columns = input.shape[-2] // height, input.shape[-1] // width
    cut = input[..., : rows * height, : columns * width].unflatten(3, (columns, width)).unflatten(2, (rows, height))
    return cut.permute(0, 1, 3, 5, 2, 4).flatten(4).flatten(1, 3)
