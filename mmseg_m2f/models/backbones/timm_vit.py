"""timm's plain vision transformers, built and checked for the backbones around them."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmseg_m2f.errors import InvalidValueError, UnknownNameError, UserError
from mmseg_m2f.layers.lora import LoRALinear, LoRASettings, add_lora, merge_foreign_lora


def build_timm_vit(
    model_name: str,
    *,
    img_size: Sequence[int] | None,
    patch_size: int,
    pretrained: bool = False,
    checkpoint_path: str | None = None,
    model_options: Mapping[str, object] | None = None,
) -> nn.Module:
    """A vision transformer of timm without classifier that takes images of any size, as patches allow.

    Args:
        model_name: timm's name of a model that it builds from `VisionTransformer` (ViT, DeiT III, MAE, CLIP, DINOv2)
            or from `Eva` (DINOv3).
        img_size: height and width in pixels that the positions are learnt for; None for the grid of patches that timm's
            weights were trained with. Positions of weights are resized for it, and for images of other sizes.
        patch_size: height and width in pixels of a patch; weights of other sizes are resampled.
        pretrained: fetch timm's weights of this model.
        checkpoint_path: a file to take weights from instead, in timm's names or as DINOv2 and DINOv3 publish them.
        model_options: further arguments of timm's model, for example `drop_path_rate`.

    Raises:
        ImportError: timm is missing, or older than 1.0.26.
        KeyError: timm has no such model; the message names the nearest.
        ValueError: the model is no plain vision transformer, or `img_size` is no whole number of patches.
    """
    _check_timm()
    import timm

    _check_name(model_name)
    wrong = img_size is not None and (
        not isinstance(img_size, Sequence) or len(img_size) != 2 or any(side % patch_size for side in img_size)
    )
    if wrong:
        raise InvalidValueError(
            f"model.backbone.img_size: expected height and width, multiples of the patch size {patch_size}, such as "
            f"({8 * patch_size}, {8 * patch_size}), got {img_size!r}."
        )
    options = dict(model_options or {})
    if img_size is None:
        with torch.device("meta"):
            own = _checked(timm.create_model(model_name, num_classes=0, **options), model_name)
        img_size = [cells * patch_size for cells in cast(Any, own.patch_embed).grid_size]
    vit = timm.create_model(
        model_name,
        pretrained=pretrained or checkpoint_path is not None,
        pretrained_cfg_overlay=None if checkpoint_path is None else dict(file=checkpoint_path),
        img_size=tuple(img_size),
        patch_size=patch_size,
        dynamic_img_size=True,
        num_classes=0,
        **options,
    )
    _checked(vit, model_name).register_load_state_dict_pre_hook(_check_positions)
    vit.register_load_state_dict_pre_hook(merge_foreign_lora)
    return vit


def _check_name(model_name: str) -> None:
    import timm

    if timm.is_model(model_name) or ":" in model_name:  # an address of the hub
        return
    plain = timm.list_models(module=["vision_transformer", "eva", "deit"])
    near = difflib.get_close_matches(model_name.partition(".")[0], plain, n=3, cutoff=0.6)
    nearest = f" Nearest: {', '.join(near)}." if near else ""
    raise UnknownNameError(f"model.backbone.model_name: expected a model of timm, got '{model_name}'.{nearest}")


def adapt_vit(vit: nn.Module, lora: Mapping[str, object] | None) -> None:
    """Fix the weights of timm's model and add low-rank changes to its blocks, if the config says so.

    Args:
        lora: see `LoRASettings`, for example `dict(rank=16)`; None leaves the model as it is.

    Raises:
        KeyError: an unknown setting, or layers that the blocks do not have.
    """
    if lora is None:
        return
    vit.requires_grad_(False)
    blocks = vit.get_submodule("blocks")
    try:
        add_lora(blocks, LoRASettings.read(lora))
    except UserError as error:
        raise type(error)(f"model.backbone.{error.args[0]}") from error
    for module in blocks.modules():
        if isinstance(getattr(module, "qkv", None), LoRALinear) and hasattr(module, "qkv_bias_separate"):
            # Otherwise timm multiplies by the weight of the layer itself and never calls it.
            module.qkv_bias_separate = True  # type: ignore[assignment]


def undecayed_names(vit: nn.Module) -> set[str]:
    """Positions and tokens of timm's model, which have no weight decay."""
    known = ("pos_embed", "cls_token", "reg_token", "mask_token")
    return {name for name, _ in vit.named_parameters(recurse=False) if name in known}


def check_image_size(size: Sequence[int], multiple: int, *, backbone: str) -> None:
    """Refuse images that patches do not fill.

    Raises:
        ValueError: height or width is no multiple of `multiple`; the message names the nearest sizes.
    """
    height, width = size
    if height % multiple or width % multiple:
        raise InvalidValueError(
            f"model.backbone ({backbone}): expected images whose height and width are multiples of {multiple}, got "
            f"{height} × {width}. Nearest: {_nearest(height, multiple)} × {_nearest(width, multiple)}. Set the crop "
            "size, and size_divisor or pad_size_divisor in model.data_preprocessor."
        )


def _nearest(length: int, multiple: int) -> str:
    lower = length // multiple * multiple
    return str(length) if lower == length else " or ".join(str(x) for x in (lower, lower + multiple) if x)


def _check_timm() -> None:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'model.backbone: expected the package timm, which is not installed. Run `pip install "mmseg-m2f[timm]"`.'
        ) from error
    if not hasattr(timm.layers, "resolve_self_attn_mask"):  # came together with boolean masks
        raise ImportError(
            f"model.backbone: expected timm>=1.0.26, whose blocks take boolean masks, got {timm.__version__}. "
            'Run `pip install --upgrade "timm>=1.0.26"`.'
        )


def _checked(model: nn.Module, model_name: str) -> nn.Module:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(model, (VisionTransformer, Eva)):
        raise InvalidValueError(
            f"model.backbone.model_name: expected a plain vision transformer of timm (VisionTransformer or Eva), got "
            f"'{model_name}', which is a {type(model).__name__}. Take for example 'vit_large_patch14_reg4_dinov2'."
        )
    return model


def _check_positions(vit: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Refuse positions of another grid, which a checkpoint's weights would otherwise leave untrained."""
    own, given = getattr(vit, "pos_embed", None), state_dict.get(f"{prefix}pos_embed")
    if own is None or given is None or given.shape == own.shape:
        return
    patches = cast(Any, vit.patch_embed)
    height, width = patches.grid_size
    raise InvalidValueError(
        f"{prefix}pos_embed: expected positions of shape {tuple(own.shape)}, for {height} × {width} patches (img_size="
        f"{tuple(patches.img_size)}), got {tuple(given.shape)}. Set model.backbone.img_size to that of the "
        "checkpoint's config; images of other sizes are no reason to change it. To start from these weights, give them "
        "as pretrained=PATH, which resizes positions of a backbone's file and leaves out those of a whole model."
    )
