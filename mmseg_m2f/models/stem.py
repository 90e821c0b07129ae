"""The first convolution of a backbone, for images of any number of channels.

Backbones are built for 3 channels and widened afterwards, so that none needs an argument for it, and checkpoints of
RGB models, whichever library loads them, fill the wider convolution. The images' channels come first in its weight.
"""

import logging
from collections.abc import Mapping, MutableMapping

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmseg_m2f.core.inflation import inflate
from mmseg_m2f.errors import InvalidTypeError, InvalidValueError

_RGB = 3


def widen_stem(backbone: nn.Module, num_channels: int) -> None:
    """Let a backbone take images of `num_channels` channels.

    The weights of its first convolution are repeated (`core.inflation`), now and when a checkpoint for another number
    of channels is loaded: a log line says so.

    Raises:
        TypeError: no convolution reads the images.
        ValueError: the backbone was built for neither 3 nor `num_channels` channels.
    """
    name, stem = _find_stem(backbone)
    if stem.in_channels not in (_RGB, num_channels):
        raise InvalidValueError(
            f"model.backbone ({type(backbone).__name__}): expected images of {num_channels} channels, as "
            "model.data_preprocessor.num_channels says, or of 3, which are widened; got "
            f"{stem.in_channels} in '{name}'. Leave in_channels out of model.backbone."
        )
    if stem.in_channels != num_channels:
        wide = _inflated(stem.weight.detach(), num_channels, others=_others(stem))
        stem.weight = nn.Parameter(wide, requires_grad=stem.weight.requires_grad)
        stem.in_channels = num_channels
    stem.register_load_state_dict_pre_hook(_inflate_loaded)


def _find_stem(backbone: nn.Module) -> tuple[str, nn.Conv2d]:
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise InvalidTypeError(
        f"model.backbone ({type(backbone).__name__}): expected a convolution that reads the images, got none. Take a "
        "backbone with one, or images of 3 channels."
    )


def _others(stem: nn.Conv2d) -> int:
    """Channels that the convolution appends to those of the image, such as coordinates."""
    return stem.weight.shape[1] * stem.groups - stem.in_channels


def _inflated(weight: Tensor, num_channels: int, *, others: int) -> Tensor:
    of_image = weight.shape[1] - others
    return torch.cat([inflate(weight[:, :of_image], num_channels), weight[:, of_image:]], 1)


def _inflate_loaded(
    stem: nn.Module, state: MutableMapping[str, Tensor], prefix: str, _: Mapping[str, object], *__: object
) -> None:
    """Repeat the weight in a checkpoint where it was trained on images of another number of channels."""
    assert isinstance(stem, nn.Conv2d)
    loaded = state.get(f"{prefix}weight")
    own = stem.weight
    if loaded is None or loaded.dim() != own.dim() or loaded.shape[1] == own.shape[1]:
        return
    of_image = loaded.shape[1] - _others(stem)
    if of_image < 1 or (loaded.shape[0], *loaded.shape[2:]) != (own.shape[0], *own.shape[2:]):
        return  # of another backbone, which the loader reports
    state[f"{prefix}weight"] = _inflated(loaded, stem.in_channels, others=_others(stem))
    print_log(
        f"{prefix}weight was trained on images of {of_image} channels; it is repeated over {stem.in_channels}, so that "
        "equal channels give the same response.",
        logger="current",
        level=logging.INFO,
    )
