"""Settings of windows that both shells share: `test_cfg` with `mode="slide"`."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from mmengine.config import ConfigDict
from torch import Tensor

from mmseg_m2f.errors import InvalidValueError

_MODES = ("whole", "slide")
_BLENDS = ("mean", "gaussian")


def check_sliding(cfg: ConfigDict) -> None:
    """Check `mode`, `crop_size`, `stride`, `scale` and `blend` of a `test_cfg`, and turn lists into tuples.

    Raises:
        ValueError: an unknown mode or blend, or windows that do not cover an image.
    """
    if cfg.mode not in _MODES:
        raise InvalidValueError(f"model.test_cfg.mode: expected 'whole' or 'slide', got {cfg.mode!r}.")
    if cfg.mode == "slide" and (cfg.get("crop_size") is None or cfg.get("stride") is None):
        raise InvalidValueError("model.test_cfg: mode 'slide' needs crop_size and stride, both (height, width).")
    for key in ("crop_size", "stride"):
        if cfg.get(key) is not None:
            cfg[key] = tuple(cfg[key])  # a list where it comes from a command line
    if cfg.mode == "slide":
        for crop, stride in zip(cfg.crop_size, cfg.stride, strict=True):
            if not 1 <= stride <= crop:
                raise InvalidValueError(
                    f"model.test_cfg: stride must lie in [1, crop_size], got stride {stride} with crop_size {crop} (an "
                    f"overlap of {crop - stride} pixels): windows would leave pixels out or never move on. Use e.g. "
                    "half of crop_size."
                )
    if cfg.blend not in _BLENDS:
        raise InvalidValueError(f"model.test_cfg.blend: expected 'mean' or 'gaussian', got {cfg.blend!r}.")
    scales = window_scales(cfg)
    if not scales or not all(_is_factor(scale) for scale in scales) or len({*scales}) < len(scales):
        raise InvalidValueError(
            "model.test_cfg.scale: expected a factor above 0 for the size of the image, or several different ones, got "
            f"{cfg.scale!r}. With 0.5 objects are half as large as in the file."
        )
    if cfg.mode == "whole" and scales != (1,):
        raise InvalidValueError(
            f"model.test_cfg: scale={cfg.scale} resizes images before windows are cut, but mode is 'whole'. Set "
            "mode='slide', or resize in the test pipeline."
        )


def window_scales(cfg: ConfigDict) -> tuple[float | int, ...]:
    """The factors that an image is resized by; it is seen once with each."""
    scale = cfg.get("scale", 1.0)
    return tuple(scale) if isinstance(scale, (list, tuple)) else (scale,)


def _is_factor(scale: object) -> bool:
    return isinstance(scale, (int, float)) and not isinstance(scale, bool) and 0 < scale < math.inf


def check_window_size(cfg: ConfigDict, strides: tuple[int, ...]) -> None:
    """Check that a window gives at least one cell of the backbone's coarsest map.

    Raises:
        ValueError: it is smaller.
    """
    if cfg.mode == "slide" and min(cfg.crop_size) < max(strides):
        raise InvalidValueError(
            f"model.test_cfg.crop_size: expected windows of at least {max(strides)} pixels, the stride of the "
            f"backbone's coarsest map, got {cfg.crop_size}. Take the size of the training crops."
        )


def rescaled(images: Float[Tensor, "B C H W"], scale: float) -> Float[Tensor, "B C H1 W1"]:
    """Images resized by a factor, bilinear; with antialiasing where they shrink."""
    if scale == 1:
        return images
    size = tuple(max(1, round(side * scale)) for side in images.shape[-2:])
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=scale < 1)
