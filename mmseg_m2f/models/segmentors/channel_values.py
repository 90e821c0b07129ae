"""Mean, standard deviation and number of the channels of images that are not RGB."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError


def set_channel_values(
    preprocessor: nn.Module,
    *,
    num_channels: int,
    mean: Sequence[float | int] | None,
    std: Sequence[float | int] | None,
    shown: Sequence[int] | None,
) -> None:
    """Give a preprocessor of mmengine its `num_channels` and `shown`, and `mean` and `std` of any length.

    mmengine takes 1 or 3 values alone. Without `mean` and `std` the preprocessor can be built, but refuses batches.

    Raises:
        ValueError: the numbers of values differ, a deviation is not positive, or a shown channel does not exist.
    """
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != num_channels:
            raise InvalidValueError(
                f"model.data_preprocessor.{name}: expected a value for each of the {num_channels} channels "
                f"(num_channels), got {len(values)}. {_ADVICE}"
            )
    if (mean is None) != (std is None) or (std is not None and not all(value > 0 for value in std)):
        raise InvalidValueError(
            f"model.data_preprocessor: expected mean and std, all of std above 0, got mean={mean}, std={std}. {_ADVICE}"
        )
    preprocessor.num_channels = num_channels  # type: ignore[assignment]
    preprocessor.shown = check_shown(shown, num_channels)  # type: ignore[assignment]
    if mean is not None:
        preprocessor.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        preprocessor.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        preprocessor._enable_normalize = True  # type: ignore[assignment]


def check_shown(shown: Sequence[int] | None, num_channels: int) -> tuple[int, ...]:
    """The channels that pictures show as red, green and blue; the first three, or the only one, unless given.

    Raises:
        ValueError: neither one nor three channels of the images.
    """
    chosen = tuple(shown) if shown is not None else (0, 1, 2) if num_channels >= 3 else (0,)
    if len(chosen) not in (1, 3) or not all(isinstance(each, int) and 0 <= each < num_channels for each in chosen):
        raise InvalidValueError(
            f"channels.shown: expected one channel or three (red, green, blue) of 0…{num_channels - 1}, got {shown}."
        )
    return chosen


def check_batch(preprocessor: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Refuse images of another number of channels, and all without a mean.

    Raises:
        ValueError: as said.
    """
    expected = preprocessor.num_channels
    if getattr(preprocessor, "mean", None) is None:
        raise InvalidValueError(
            f"model.data_preprocessor: expected mean and std of the {expected} channels, got none. {_ADVICE}"
        )
    found = {image.shape[0] for image in inputs} - {expected}
    if found:
        raise InvalidValueError(
            f"model.data_preprocessor: expected images of {expected} channels (num_channels), got {min(found)}. Set "
            f"channels={min(found)}, or load images of {expected}: option channels reaches loading and model."
        )


_ADVICE = "`mmseg_m2f doctor CONFIG --statistics` prints them for the training images, as a line for the config."
