"""Code of torch and mmseg that fixes image sizes in an exported program, replaced while a model is exported.

- Adaptive and area pooling have no standard operator for sizes that are unknown when exporting; torch's own rewriting
  computes the bins of the example. Here they are two products with matrices of bins, which are made from the sizes.
- `F.pad` with amounts that depend on the size exports only for sizes that need padding, or only for those that do not.
  Here the pixels are picked by their index, those outside are replaced.
- `mmseg.models.utils.Upsample` multiplies sizes as Python floats and rounds them, and mmseg's `resize` converts sizes
  to Python integers for the sake of a warning. Both fix the sizes of the example.

The numbers are the same up to rounding, and nothing stays replaced after the context.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from jaxtyping import Float
from mmseg.models.utils import wrappers
from torch import Tensor


@contextmanager
def exportable_code() -> Iterator[None]:
    """Replace, for the time being, functions of torch and mmseg that would fix the sizes of the example."""
    with ExitStack() as stack:
        for patch in (
            mock.patch.object(F, "adaptive_avg_pool2d", pool_to_size),
            mock.patch.object(F, "interpolate", _interpolate(F.interpolate)),
            mock.patch.object(F, "pad", _pad(F.pad)),
            mock.patch.object(wrappers.Upsample, "forward", _upsample),
            mock.patch.object(wrappers.resize, "__defaults__", (None, None, "nearest", None, False)),
        ):
            stack.enter_context(patch)
        yield


def pool_to_size(
    x: Float[Tensor, "B C H W"], size: int | None | Sequence[int | None]
) -> Float[Tensor, "B C H2 W2"]:
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
    return x.index_select(axis, place.clamp(0, length - 1)).masked_fill(outside, value)


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
