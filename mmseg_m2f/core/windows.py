"""Covering an image with overlapping windows, and averaging what is seen through them."""

from collections.abc import Callable, Iterator

from jaxtyping import Float
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError


def windows(
    size: tuple[int, int], crop_size: tuple[int, int], stride: tuple[int, int]
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each window, top left to bottom right.

    The last window of a row or column is moved back to end at the border, so that all windows have the crop's
    size; along an axis where the image is smaller than the crop there is one window, as large as the image.
    """
    for top in _starts(size[0], crop_size[0], stride[0]):
        for left in _starts(size[1], crop_size[1], stride[1]):
            yield (
                slice(top, min(top + crop_size[0], size[0])),
                slice(left, min(left + crop_size[1], size[1])),
            )


def average_windows(
    images: Float[Tensor, "B C H W"],
    score: Callable[[Tensor], Tensor],
    *,
    crop_size: tuple[int, int],
    stride: tuple[int, int],
) -> Float[Tensor, "B K H W"]:
    """Mean of `score(window)` over the windows that cover each pixel; `score` keeps the window's size."""
    height, width = images.shape[-2:]
    total: Tensor | None = None
    count = images.new_zeros(1, 1, height, width)
    for rows, columns in windows((height, width), crop_size, stride):
        scores = score(images[..., rows, columns])
        if total is None:
            total = scores.new_zeros(*scores.shape[:2], height, width)
        total[..., rows, columns] += scores
        count[..., rows, columns] += 1
    assert total is not None
    return total / count


def _starts(length: int, crop: int, stride: int) -> list[int]:
    if stride < 1 or stride > crop:
        raise InvalidValueError(
            f"test_cfg: stride must lie in [1, crop_size], got stride {stride} with crop_size {crop}: "
            "pixels between the windows would never be seen. Use e.g. stride = 2/3 of crop_size."
        )
    last = max(length - crop, 0)
    return [*range(0, last, stride), last]
