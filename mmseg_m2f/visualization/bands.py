"""Images of any number of channels as pictures."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8

_DARK, _BRIGHT = 2, 98  # percentiles that become black and white


def show_bands(image: Shaped[np.ndarray, "C H W"], shown: Sequence[int] | None) -> UInt8[np.ndarray, "H W 3"]:
    """An image as RGB.

    Args:
        image: BGR of 8 bits without `shown`; else channels of any values.
        shown: the channels for red, green and blue, or one for grey. Each is stretched from its 2nd to its 98th
            percentile in this image; a constant channel is black.
    """
    if shown is None:
        return np.ascontiguousarray(image[::-1].transpose(1, 2, 0))
    chosen = image[list(shown) * (3 // len(shown))].astype(np.float32)
    dark, bright = np.percentile(chosen, (_DARK, _BRIGHT), axis=(1, 2))[..., None, None]
    flat = bright <= dark
    stretched = (chosen - dark) / np.where(flat, 1, bright - dark)
    return np.ascontiguousarray(
        (np.where(flat, 0, stretched).clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    )


def shown_channels(model: object) -> tuple[int, ...] | None:
    """The channels that a model's preprocessor names for pictures; None where images are BGR."""
    inner = getattr(model, "module", model)  # below DDP's wrapper
    return getattr(getattr(inner, "data_preprocessor", None), "shown", None)
