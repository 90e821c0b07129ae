"""Padding that an image needs for itself, and not for the images beside it in a batch."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmseg_m2f.models.equal_sizes import group_equal, take_images

Size = tuple[int, int]


def split_by_canvas(
    images: Float[Tensor, "B C _ _"], shapes: Sequence[Size], preprocessor: nn.Module
) -> list[tuple[Float[Tensor, "b C H W"], list[int]]]:
    """The images of a batch with the padding that each would have alone; images of one size stay together.

    A network that convolves or attends over padding gives results that depend on how much of it there is. Without
    padding for others, they depend on the image alone. The batch itself comes back where no image has such padding.

    Args:
        shapes: height and width of each image, in the upper left corner of its canvas.
        preprocessor: pads to multiples of `pad_size_divisor` (mmdet's), or as `test_cfg` says (mmseg's).

    Returns:
        Parts of the batch, and the numbers of the images in each.
    """
    canvases = [own_canvas(shape, preprocessor) for shape in shapes]
    return [(_fit(take_images(images, numbers), canvas), numbers) for canvas, numbers in group_equal(canvases)]


def own_canvas(shape: Size, preprocessor: nn.Module) -> Size:
    """Height and width of an image that is alone in its batch, after padding."""
    settings = getattr(preprocessor, "test_cfg", None) or {}
    least = settings.get("size") or shape
    # mmseg's has the attribute as well, always 1, from mmengine's class below it.
    divisor = settings.get("size_divisor") or getattr(preprocessor, "pad_size_divisor", None) or 1
    height, width = (-(-max(*sides) // divisor) * divisor for sides in zip(shape, least, strict=True))
    return height, width


def _fit(images: Float[Tensor, "b C _ _"], canvas: Size) -> Float[Tensor, "b C H W"]:
    """The upper left part of the images, or the images with more padding."""
    height, width = images.shape[-2:]
    if (height, width) == canvas:
        return images
    cut = images[..., : canvas[0], : canvas[1]]
    return F.pad(cut, (0, canvas[1] - cut.shape[-1], 0, canvas[0] - cut.shape[-2]))
