"""Covering an image with overlapping windows, and averaging what is seen through them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError

#: First pixel of a window along one axis, and the one behind its last.
Span: TypeAlias = tuple[int, int]
Blend: TypeAlias = Literal["mean", "gaussian"]

_SIGMA = 1 / 8  # of the window's side


class Window(NamedTuple):
    """One window of a grid; all are pixels of the image."""

    rows: slice
    columns: slice
    own_rows: slice
    """The pixels that no other window sees nearer to its middle: the windows' own pixels divide the image."""
    own_columns: slice


@dataclass(frozen=True)
class WindowGrid:
    """Windows that cover an image: every span of rows with every span of columns, row by row."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __iter__(self) -> Iterator[Window]:
        own_rows, own_columns = divide(self.rows), divide(self.columns)
        for rows, own in zip(self.rows, own_rows, strict=True):
            for columns, own_column in zip(self.columns, own_columns, strict=True):
                yield Window(slice(*rows), slice(*columns), slice(*own), slice(*own_column))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.rows[-1][1], self.columns[-1][1]

    @property
    def is_single(self) -> bool:
        """Whether one window shows the whole image."""
        return len(self.rows) == len(self.columns) == 1

    def resized(self, size: tuple[int, int]) -> "WindowGrid":
        """The same windows on a resized image, to the nearest pixel."""
        return WindowGrid(_resized(self.rows, self.size[0], size[0]), _resized(self.columns, self.size[1], size[1]))

    def clipped(self, size: tuple[int, int]) -> "WindowGrid":
        """The same windows without what lies beyond a size that reaches into each of them."""
        height, width = size
        return WindowGrid(
            tuple((start, min(stop, height)) for start, stop in self.rows),
            tuple((start, min(stop, width)) for start, stop in self.columns),
        )


def window_grid(size: tuple[int, int], crop_size: tuple[int, int], stride: tuple[int, int]) -> WindowGrid:
    """The windows of an image.

    The last window of a row or column is moved back to end at the border, so that all windows have the crop's
    size; along an axis where the image is smaller than the crop there is one window, as large as the image.

    Raises:
        ValueError: a stride below 1, or above the crop.
    """
    spans = (_spans(*axis) for axis in zip(size, crop_size, stride, strict=True))
    return WindowGrid(*spans)


def windows(
    size: tuple[int, int], crop_size: tuple[int, int], stride: tuple[int, int]
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each window of `window_grid`, top left to bottom right."""
    for window in window_grid(size, crop_size, stride):
        yield window.rows, window.columns


def divide(spans: Sequence[Span]) -> list[Span]:
    """What each span has for itself when neighbours divide their overlap in its middle, the odd pixel going left."""
    seams = [(stop + start + 1) // 2 for (_, stop), (start, _) in pairwise(spans)]
    return [*zip([spans[0][0], *seams], [*seams, spans[-1][1]], strict=True)]


def average_windows(
    images: Float[Tensor, "B C H W"],
    score: Callable[[Tensor], Tensor],
    *,
    crop_size: tuple[int, int],
    stride: tuple[int, int],
    blend: Blend = "mean",
) -> Float[Tensor, "B K H W"]:
    """Mean of `score(window)` over the windows that cover each pixel; `score` keeps the window's size.

    Args:
        blend: "mean" gives all pixels of a window the same weight, as mmsegmentation does. "gaussian" gives those near
            its middle more (see `gaussian_weights`), which hides the seams.
    """
    height, width = images.shape[-2:]
    total: Tensor | None = None
    count = images.new_zeros(1, 1, height, width)
    for rows, columns in windows((height, width), crop_size, stride):
        scores = score(images[..., rows, columns])
        if total is None:
            total = scores.new_zeros(*scores.shape[:2], height, width)
        if blend == "mean":
            total[..., rows, columns] += scores
            count[..., rows, columns] += 1
        else:
            weights = gaussian_weights((scores.shape[-2], scores.shape[-1]), like=count)
            total[..., rows, columns] += scores * weights
            count[..., rows, columns] += weights
    assert total is not None
    return total / count


def gaussian_weights(size: tuple[int, int], *, like: Tensor) -> Float[Tensor, "H W"]:
    """exp(-(Δy² / h² + Δx² / w²) / 2σ²) of the distance from the middle of a window h × w, with σ = 1/8."""
    axes = [
        torch.exp(-(((torch.arange(side, device=like.device) + 0.5) / side - 0.5) ** 2) / (2 * _SIGMA**2))
        for side in size
    ]
    return (axes[0][:, None] * axes[1]).to(like.dtype)


def _spans(length: int, crop: int, stride: int) -> tuple[Span, ...]:
    if stride < 1 or stride > crop:
        raise InvalidValueError(
            f"test_cfg: stride must lie in [1, crop_size], got stride {stride} with crop_size {crop}: "
            "pixels between the windows would never be seen. Use e.g. stride = 2/3 of crop_size."
        )
    last = max(length - crop, 0)
    return tuple((start, min(start + crop, length)) for start in [*range(0, last, stride), last])


def _resized(spans: Sequence[Span], length: int, target: int) -> tuple[Span, ...]:
    return tuple(
        ((2 * start * target + length) // (2 * length), (2 * stop * target + length) // (2 * length))
        for start, stop in spans
    )
