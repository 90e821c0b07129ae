"""How a model prepares images: as its data preprocessor does, and as an exported file says it expects them."""

from typing import Any, NamedTuple, cast

from torch import nn

from mmseg_m2f.runtime import ExportRecord


class Normalisation(NamedTuple):
    """How the data preprocessor of a model prepares images; see `ExportRecord`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_rgb: bool
    size_divisor: int
    pad_value: float

    @classmethod
    def of(cls, record: ExportRecord) -> "Normalisation":
        """That of a file."""
        return cls(record.mean, record.std, record.to_rgb, record.size_divisor, record.pad_value)

    @classmethod
    def of_model(cls, model: nn.Module, *, channels: int = 3) -> "Normalisation":
        """That of a model's data preprocessor, mmseg's or mmdet's; mean 0 and std 1 where it does not normalise.

        Args:
            channels: Of the images, for a preprocessor that does not normalise.
        """
        preprocessor = cast(Any, model).data_preprocessor
        normalises = getattr(preprocessor, "_enable_normalize", False)
        mean = preprocessor.mean.flatten().tolist() if normalises else [0.0] * channels
        std = preprocessor.std.flatten().tolist() if normalises else [1.0] * channels
        converts = getattr(preprocessor, "channel_conversion", getattr(preprocessor, "_channel_conversion", False))
        testing = getattr(preprocessor, "test_cfg", None) or {}
        divisor = testing.get("size_divisor") or getattr(preprocessor, "pad_size_divisor", None) or 1
        value = getattr(preprocessor, "pad_val", getattr(preprocessor, "pad_value", 0))
        return cls(tuple(mean), tuple(std), bool(converts), int(divisor), float(value))
