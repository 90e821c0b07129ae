"""Channels and strides of a backbone's maps, so that no config repeats them."""

from collections.abc import Callable, Iterator, Sequence
from inspect import signature

import torch
from mmengine.config import ConfigDict
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError, UserError
from mmseg_m2f.registry import MODELS
from mmseg_m2f.structures import FeatureSpec, TokenStream

_PROBE_SIZE = 64
#: What backbones of other libraries raise for images that they cannot take.
_LIBRARY_ERRORS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


@torch.no_grad()
def probe_feature_spec(
    backbone: nn.Module,
    extract: Callable[[Tensor], object],
    *,
    image_channels: int | None = None,
    crop_size: int | tuple[int, int] | None = None,
) -> FeatureSpec:
    """Channels and strides of the maps that `extract` makes of an image.

    A backbone may describe its maps in an attribute `feature_info`: a `FeatureSpec`, or an object with the methods
    `channels()` and `reduction()`, as timm's models have. Otherwise `extract` runs once, in evaluation mode and without
    gradients, on a black image of about 64 pixels; if the backbone refuses this size, on one of `crop_size`, or of the
    backbone's own `img_size` where the crop is not known. The run changes neither statistics nor random state. A
    `TokenStream` counts as one map, its patches.

    Args:
        backbone: tells device and dtype, and by `patch_size`, where it has one, which sizes it takes.
        extract: runs backbone and neck; the backbone itself where there is no neck.
        image_channels: of the images; those of the backbone's first convolution unless given.
        crop_size: height and width of the images in training, or one number for both.

    Raises:
        TypeError: what comes out is not a list of maps `B C H W`, fine to coarse.
        ValueError: the backbone has no map for some of its `out_indices`, or cannot run on such images.
    """
    if extract is backbone and (described := _described(backbone)) is not None:
        return described
    if image_channels is None:
        first = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
        image_channels = 3 if first is None else first.in_channels
    tried: list[str] = []
    failure: Exception | None = None
    for size in _probe_sizes(backbone, crop_size):
        try:
            maps = _run(backbone, extract, channels=image_channels, size=size)
        except UserError:
            raise
        except _LIBRARY_ERRORS as error:
            tried.append(f"{image_channels} × {size[0]} × {size[1]}")
            failure = error
        else:
            return _spec_of(backbone, maps, size)
    raise InvalidValueError(
        f"model.backbone ({type(backbone).__name__}): expected it to run on images of {' and '.join(tried)} (channels, "
        f"height, width), got {type(failure).__name__}: {str(failure).strip() or 'no message'}. Set the backbone's "
        "in_channels to the number of values in data_preprocessor.mean, and its img_size to the crop size "
        "(data_preprocessor.size)."
    ) from failure


def image_channels_of(data_preprocessor: nn.Module) -> int | None:
    """Channels of the images that a data preprocessor gives: `num_channels`, or the length of `mean`.

    None where neither tells: a single mean fits any number of channels.
    """
    if (num_channels := getattr(data_preprocessor, "num_channels", None)) is not None:
        return num_channels
    mean = getattr(data_preprocessor, "mean", None)
    return None if mean is None or mean.numel() == 1 else mean.numel()


def crop_size_of(data_preprocessor: nn.Module) -> int | tuple[int, int] | None:
    """Size that a data preprocessor pads its images to; None where it depends on the images."""
    augmentations = getattr(data_preprocessor, "batch_augments", None) or ()
    parts = (data_preprocessor, *(augmentations if isinstance(augmentations, nn.ModuleList) else ()))
    return next((size for part in parts if (size := getattr(part, "size", None)) is not None), None)


def _described(backbone: nn.Module) -> FeatureSpec | None:
    """The backbone's own description of its maps, if it has one."""
    source = getattr(backbone, "timm_model", backbone)  # mmseg.TIMMBackbone holds timm's model there
    info = getattr(source, "feature_info", None)
    if isinstance(info, FeatureSpec):
        return info
    if info is None or not (hasattr(info, "channels") and hasattr(info, "reduction")):
        return None
    if getattr(source, "output_fmt", None) == "NHWC":
        raise _channels_last(backbone)
    return _ordered(backbone, FeatureSpec(tuple(info.channels()), tuple(info.reduction())))


def _probe_sizes(backbone: nn.Module, crop_size: int | tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    """Sizes to try, the cheapest first."""
    patch = to_2tuple(getattr(backbone, "patch_size", 1) or 1)
    yield (-(-_PROBE_SIZE // patch[0]) * patch[0], -(-_PROBE_SIZE // patch[1]) * patch[1])
    own = next((size for module in backbone.modules() if (size := getattr(module, "img_size", None))), None)
    given = crop_size or own
    if given:
        height, width = to_2tuple(given)
        yield (height, width)


def _run(
    backbone: nn.Module, extract: Callable[[Tensor], object], *, channels: int, size: tuple[int, int]
) -> Sequence[Tensor]:
    like = next(backbone.parameters(), torch.empty(0))
    images = like.new_zeros(1, channels, *size)
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
    return maps


def _spec_of(backbone: nn.Module, maps: Sequence[Tensor], size: tuple[int, int]) -> FeatureSpec:
    if not all(_fits(size, x.shape[2:]) for x in maps) and all(_fits(size, x.shape[1:3]) for x in maps):
        raise _channels_last(backbone)
    strides = tuple(round(size[1] / x.shape[-1]) for x in maps)
    num_joint_blocks = len(maps.blocks) if isinstance(maps, TokenStream) else 0
    return _ordered(backbone, FeatureSpec(tuple(x.shape[1] for x in maps), strides, num_joint_blocks))


def _fits(size: tuple[int, int], map_size: Sequence[int]) -> bool:
    """Whether a map has the shape of the image, up to a cell in each direction."""
    (height, width), (map_height, map_width) = size, map_size
    return abs(map_height * width / height - map_width) <= 1 + width / height


def _ordered(backbone: nn.Module, spec: FeatureSpec) -> FeatureSpec:
    if list(spec.strides) != sorted(spec.strides):
        raise InvalidTypeError(
            f"model.backbone ({type(backbone).__name__}): expected maps fine to coarse, got strides {spec.strides}. "
            "Order out_indices from the finest map to the coarsest."
        )
    return spec


def _channels_last(backbone: nn.Module) -> InvalidTypeError:
    return InvalidTypeError(
        f"model.backbone ({type(backbone).__name__}): expected maps B C H W, got channels-last maps B H W C. For a "
        "model of timm set model.backbone.feature_cls='getter', which moves the channels; otherwise put a neck that "
        "permutes the maps behind the backbone."
    )


def check_head(decode_head: ConfigDict | dict) -> None:
    """Refuse heads that do not take the backbone's channels and strides, such as mmseg's.

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
    """Refuse `out_indices` beyond the last stage, which many backbones ignore."""
    indices = getattr(backbone, "out_indices", None)
    if isinstance(maps, TokenStream) or not isinstance(indices, Sequence) or not isinstance(maps, Sequence):
        return
    if len(maps) < len(indices):
        raise InvalidValueError(
            f"model.backbone.out_indices ({type(backbone).__name__}): expected indices of existing stages or blocks, "
            f"each once, got {tuple(indices)}, for which there are {len(maps)} maps. The first one has index 0."
        )
