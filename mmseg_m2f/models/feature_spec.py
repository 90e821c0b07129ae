"""Asking a backbone what it returns, so that no config repeats channels and strides."""

from collections.abc import Callable, Sequence
from inspect import signature

import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, TokenStream

_PROBE_SIZE = 64


@torch.no_grad()
def probe_feature_spec(backbone: nn.Module, extract: Callable[[Tensor], object]) -> FeatureSpec:
    """Channels and strides of the maps that `extract` makes of an image, found by running it once.

    A `TokenStream` counts as one map, its patches. Nothing remains of the run: no gradient, no statistics, no random
    number drawn.

    Args:
        backbone: tells the number of input channels, device and dtype by its first convolution, and by `patch_size`,
            where it has one, which sizes it takes.
        extract: runs backbone and neck.

    Raises:
        TypeError: what comes out is not a list of maps `B C H W`, fine to coarse.
        ValueError: the backbone has no map for some of its `out_indices`.
    """
    first = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
    in_channels = 3 if first is None else first.in_channels
    like = next(backbone.parameters(), torch.empty(0))
    patch_size = getattr(backbone, "patch_size", None)
    size = _PROBE_SIZE if not isinstance(patch_size, int) else -(-_PROBE_SIZE // patch_size) * patch_size
    images = like.new_zeros(1, in_channels, size, size)
    was_training = [module for module in backbone.modules() if module.training]
    backbone.eval()
    handle = backbone.register_forward_hook(_check_number_of_maps)
    try:
        maps = extract(images)
    finally:
        handle.remove()
        for module in was_training:
            module.training = True
    if not isinstance(maps, Sequence) or not all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
        raise InvalidTypeError(
            f"model.backbone ({type(backbone).__name__}): expected a list of maps B C H W, fine to coarse, got "
            f"{type(maps).__name__}. Set out_indices so that it returns maps, or put a neck behind it."
        )
    strides = tuple(round(size / x.shape[-1]) for x in maps)
    if list(strides) != sorted(strides):
        raise InvalidTypeError(
            f"model.backbone ({type(backbone).__name__}): expected maps fine to coarse, got strides {strides}. "
            "Order out_indices from the finest map to the coarsest."
        )
    num_joint_blocks = len(maps.blocks) if isinstance(maps, TokenStream) else 0
    return FeatureSpec(tuple(x.shape[1] for x in maps), strides, num_joint_blocks)


def check_head(decode_head: ConfigDict | dict) -> None:
    """Refuse heads that cannot be told what the backbone gives, such as mmseg's.

    Raises:
        TypeError: the head does not take `feature_spec`.
    """
    found = MODELS.get(decode_head["type"]) if isinstance(decode_head.get("type"), str) else None
    if found is not None and "feature_spec" not in signature(found).parameters:
        raise InvalidTypeError(
            f"model.decode_head: expected mmseg_m2f.MaskHead, got {decode_head['type']}. Per-pixel heads, and "
            "ContextAwareHead around them, go into a model of type mmseg.EncoderDecoder."
        )


def _check_number_of_maps(backbone: nn.Module, _: object, maps: object) -> None:
    """Many backbones pass over indices that they do not have."""
    indices = getattr(backbone, "out_indices", None)
    if isinstance(indices, Sequence) and isinstance(maps, Sequence) and len(maps) < len(indices):
        raise InvalidValueError(
            f"model.backbone.out_indices ({type(backbone).__name__}): expected indices of existing stages or blocks, "
            f"each once, got {tuple(indices)}, for which there are {len(maps)} maps. The first one has index 0."
        )
