"""Code of torch and mmseg that fixes image sizes in an exported program, replaced while a model is exported.

- Adaptive and area pooling have no standard operator for sizes that are unknown when exporting; torch's own rewriting
  computes the bins of the example. Here they are two products with matrices of bins, which are made from the sizes.
- `torch.linspace` needs a known number of steps.
- `F.pad` with amounts that depend on the size exports only for sizes that need padding, or only for those that do not.
  Here the pixels are picked by their index, those outside are replaced.
- `Tensor.split` into pieces of unknown sizes becomes a sequence of tensors. In some programs onnxruntime reuses memory
  of another shape for them, and stops. Here each piece is a slice.
- `AdaptivePadding` of mmseg, mmcv and mmdet pads only if the example needs padding.
- `mmseg.models.utils.Upsample` multiplies sizes as Python floats and rounds them, and mmseg's `resize` converts sizes
  to Python integers for the sake of a warning. Both fix the sizes of the example.

The numbers are the same up to rounding, and nothing stays replaced after the context.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from jaxtyping import Float
from mmseg.models.utils import wrappers
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.export.swin_windows import exportable_windows

_WITH_ADAPTIVE_PADDING = (
    "mmseg.models.utils.embed",
    "mmcv.cnn.bricks.transformer",
    "mmdet.models.layers.transformer.utils",
)


@contextmanager
def exportable_code(lowering: Literal["gridsample", "gather"] = "gridsample") -> Iterator[None]:
    """Replace, for the time being, functions of torch and mmseg that would fix the sizes of the example.

    Args:
        lowering: "gather" also replaces bilinear reading at points by `sample_by_gather`.
    """
    with ExitStack() as stack:
        stack.enter_context(exportable_windows())
        for patch in (
            mock.patch.object(F, "adaptive_avg_pool2d", pool_to_size),
            mock.patch.object(F, "interpolate", _interpolate(F.interpolate)),
            mock.patch.object(F, "pad", _pad(F.pad)),
            mock.patch.object(torch, "linspace", _linspace(torch.linspace)),
            mock.patch.object(Tensor, "split", _split(Tensor.split)),
            mock.patch.object(wrappers.Upsample, "forward", _upsample),
            mock.patch.object(wrappers.resize, "__defaults__", (None, None, "nearest", None, False)),
        ):
            stack.enter_context(patch)
        if lowering == "gather":
            stack.enter_context(mock.patch.object(F, "grid_sample", sample_by_gather))
        for name in _WITH_ADAPTIVE_PADDING:
            if name in sys.modules:
                padding = sys.modules[name].AdaptivePadding
                stack.enter_context(mock.patch.object(padding, "forward", _pad_adaptively))
        yield


def pool_to_size(x: Float[Tensor, "B C H W"], size: int | Sequence[int | None] | None) -> Float[Tensor, "B C H2 W2"]:
    """`F.adaptive_avg_pool2d` as `R X Cᵀ`: bin i averages the pixels from `⌊i H / H2⌋` to `⌈(i + 1) H / H2⌉`."""
    asked = (size, size) if size is None or isinstance(size, int | torch.SymInt) else tuple(size)
    height, width = (own if each is None else each for own, each in zip(x.shape[-2:], asked, strict=True))
    if isinstance(height, int) and isinstance(width, int) and height == width == 1:
        return x.mean((-2, -1), keepdim=True)
    rows, columns = bin_matrix(x.shape[-2], height, x), bin_matrix(x.shape[-1], width, x)
    return rows @ x @ columns.mT


def bin_matrix(length: int, num_bins: int, like: Tensor) -> Float[Tensor, "n N"]:
    """The weights of `length` pixels in each bin: 1 over the pixels of the bin inside, 0 outside."""
    bins = torch.arange(num_bins, device=like.device).unsqueeze(1)
    start = bins * length // num_bins
    stop = ((bins + 1) * length + num_bins - 1) // num_bins
    pixels = torch.arange(length, device=like.device)
    inside = (pixels >= start) & (pixels < stop)
    return inside.to(like.dtype) / (stop - start).to(like.dtype)


def sample_by_gather(
    input: Float[Tensor, "N C H W"],
    grid: Float[Tensor, "N H2 W2 2"],
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Float[Tensor, "N C H2 W2"]:
    """`F.grid_sample`, bilinear with zeros outside and corners not aligned, as four gathers and their weighted sum.

    Raises:
        ValueError: another mode is asked for.
    """
    if (mode, padding_mode, bool(align_corners)) != ("bilinear", "zeros", False):
        raise InvalidValueError(
            f"--lowering gather: expected bilinear reading with zeros outside, got {mode}, {padding_mode}, "
            f"align_corners={align_corners}. Export with --lowering gridsample."
        )
    height, width = input.shape[-2:]
    x, y = (grid.flatten(1, 2).unbind(-1)[axis] for axis in (0, 1))  # N P
    x, y = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    left, top = x.floor(), y.floor()
    pixels, total = input.flatten(2), None
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
            place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            read = pixels.gather(2, place.unsqueeze(1).expand(-1, pixels.shape[1], -1)) * weight.unsqueeze(1)
            total = read if total is None else total + read
    assert total is not None
    return total.unflatten(2, (grid.shape[1], grid.shape[2]))


def _interpolate(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def interpolate(
        input: Tensor,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        if mode == "area" and size is not None:
            return pool_to_size(input, size)
        return original(input, size, scale_factor, mode, *args, **kwargs)

    return interpolate


def _pad(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
        if mode != "constant" or all(isinstance(amount, int) for amount in pad):
            return original(input, pad, mode, value)
        for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
            input = _pad_axis(input, input.dim() - axis, before, after, value or 0)
        return input

    return pad


def _pad_axis(x: Tensor, axis: int, before: int, after: int, value: float) -> Tensor:
    if isinstance(before, int) and isinstance(after, int) and before == after == 0:
        return x
    length = x.shape[axis]
    place = torch.arange(before + length + after, device=x.device) - before
    outside = ((place < 0) | (place >= length)).view(-1, *(1,) * (x.dim() - 1 - axis))
    picked = x.index_select(axis, place.clamp(0, length - 1))
    if x.dtype == torch.bool:  # onnxruntime has no `Where` for it
        return picked | outside if value else picked & ~outside
    return picked.masked_fill(outside, value)


def _pad_adaptively(self: wrappers.nn.Module, x: Tensor) -> Tensor:
    """`AdaptivePadding.forward`, without asking whether there is anything to pad, and without division as floats."""
    bottom, right = map(_missing, x.shape[-2:], self.kernel_size, self.stride, self.dilation)
    if self.padding == "corner":
        return F.pad(x, [0, right, 0, bottom])
    return F.pad(x, [right // 2, right - right // 2, bottom // 2, bottom - bottom // 2])


def _missing(length: int, kernel: int, stride: int, dilation: int) -> int:
    """What has to be added for the last of `length / stride` kernels, rounded up."""
    reach = (kernel - 1) * dilation + 1
    missing = ((length + stride - 1) // stride - 1) * stride + reach - length
    return missing if reach >= stride else torch.sym_max(missing, 0)


def _linspace(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def linspace(start: float, end: float, steps: int, **kwargs: Any) -> Tensor:  # noqa: ANN401
        if isinstance(steps, int):
            return original(start, end, steps, **kwargs)
        # As torch does it: from both ends, which meet in the middle.
        numbers, step = torch.arange(steps, **kwargs), (end - start) / (steps - 1)
        return torch.where(numbers < steps // 2, start + step * numbers, end - step * (steps - 1 - numbers))

    return linspace


def _split(original: Callable[..., Any]) -> Callable[..., Any]:
    def split(self: Tensor, split_size: int | Sequence[int], dim: int = 0) -> Sequence[Tensor]:
        if not isinstance(split_size, Sequence):
            return original(self, split_size, dim)
        ends = list(accumulate(split_size, initial=0))
        return tuple(self.narrow(dim, start, end - start) for start, end in pairwise(ends))

    return split


def _upsample(self: wrappers.Upsample, x: Tensor) -> Tensor:
    """`Upsample.forward` of mmseg; whole factors multiply sizes as integers."""
    size = self.size
    if not size:
        factors = self.scale_factor if isinstance(self.scale_factor, tuple) else (self.scale_factor,) * 2
        size = [
            length * int(factor) if float(factor).is_integer() else int(length * factor)
            for length, factor in zip(x.shape[-2:], factors, strict=True)
        ]
    return F.interpolate(x, tuple(size), None, self.mode, self.align_corners)
