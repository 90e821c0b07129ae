"""Another backbone in the place of a config's, with the normalisation that its weights expect."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmseg_m2f.config.ingredients import find_ingredient
from mmseg_m2f.config.initial_weights import bare_backbone
from mmseg_m2f.config.type_lookup import accepted_arguments, find_types
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.feature_spec import probe_feature_spec

#: What ImageNet weights of most libraries expect: RGB in 0…255. An ingredient that differs has `normalization`.
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)


def replace_backbone(cfg: Config, name: str, *, beside: str | Path | None) -> None:
    """Put the `backbone` of an ingredient in the place of the model's, with the `neck` that it brings, if any.

    The neck that the former backbone's ingredient brought goes; one that the config sets itself stays, unless the
    ingredient brings another. Mean, std and channel order of `data_preprocessor` become those of the ingredient's
    `normalization`, ImageNet's if it has none; values that were not the former backbone's stay, with a warning.
    `img_size` stays between two backbones of one type.

    Raises:
        FileNotFoundError, ValueError: There is no such ingredient, or the model has no backbone.
    """
    file = find_ingredient("backbones", name, beside=beside, option="backbone")
    ingredient = Config.fromfile(file)
    backbone = ingredient.get("backbone")
    if not isinstance(backbone, Mapping) or "type" not in backbone:
        raise InvalidValueError(
            f"backbone={name}: {file} defines no backbone = dict(type=...). Choose a file of _base_/backbones."
        )
    if "backbone" not in cfg.get("model", {}):
        raise InvalidValueError(
            f"backbone={name}: the config's model has no part 'backbone' to replace. Set the part of the model that "
            "is meant by its dotted key."
        )
    old, new = cfg.model.backbone or {}, ConfigDict(backbone)
    takes_size = any(
        "img_size" in (accepted_arguments(target) or ()) for target in find_types(new.type, scope="mmengine")
    )
    if "img_size" in old and (old.get("type") == new.type or takes_size):
        new.setdefault("img_size", old["img_size"])  # that of the crop, which stays
    cfg.model.backbone = new
    if "backbone" in cfg:
        cfg.backbone = copy.deepcopy(new)
    _swap_neck(cfg, ingredient.get("neck"))
    _swap_normalization(cfg, {**IMAGENET, **(ingredient.get("normalization") or {})}, option=f"backbone={name}")


def fit_channels(cfg: Config) -> None:
    """Tell the parts of mmseg that cannot ask the backbone for its channels; ours ask when they are built.

    Raises:
        ValueError: A head reads more maps than the backbone gives.
    """
    model = cfg.model
    neck = model.get("neck") or ConfigDict()
    heads = [model.get(name) or [] for name in ("decode_head", "auxiliary_head")]
    listed = [head for part in heads for head in (part if isinstance(part, list) else [part])]
    readers = [node for head in listed if "in_channels" in (node := head.get("host", head))]
    if not readers and "in_channels" not in neck:
        return
    backbone = bare_backbone(cfg)
    mean = (model.get("data_preprocessor") or {}).get("mean") or ()
    image_channels = len(mean) if len(mean) > 1 else None  # a single mean fits images of any number of channels
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        built = MODELS.build(backbone)
        channels = probe_feature_spec(built, built, image_channels=image_channels).channels
        if "in_channels" in neck:  # a number is that of the last map
            neck.in_channels = list(channels) if isinstance(neck.in_channels, (list, tuple)) else channels[-1]
        if neck and readers:
            pyramid = MODELS.build(neck)
            extract = torch.nn.Sequential(built, pyramid)
            channels = probe_feature_spec(built, extract, image_channels=image_channels).channels
    for node in readers:
        _set_channels(node, channels, backbone=type(built).__name__)


def _set_channels(node: ConfigDict, channels: Sequence[int], *, backbone: str) -> None:
    several = isinstance(node.in_channels, (list, tuple))
    index = node.get("in_index", range(len(node.in_channels)) if several else -1)
    needed = max(index) if several else index
    if not -len(channels) <= needed < len(channels):
        raise InvalidValueError(
            f"backbone={backbone}: {node.type} reads map {needed} (in_index), but the backbone gives "
            f"{len(channels)}. Set model.backbone.out_indices or the head's in_index."
        )
    node.in_channels = [channels[i] for i in index] if several else channels[index]
    if "c1_in_channels" in node:  # DeepLabV3+ reads the finest map as well
        node.c1_in_channels = channels[0]


def _swap_neck(cfg: Config, brought: Mapping[str, object] | None) -> None:
    """Put the neck of a new backbone's ingredient into the model, or take out that of the former's."""
    if brought is not None:
        cfg.model.neck, cfg.neck = ConfigDict(copy.deepcopy(brought)), ConfigDict(brought)
    elif cfg.pop("neck", None) is not None:
        cfg.model.pop("neck", None)


def _swap_normalization(cfg: Config, new: Mapping[str, object], *, option: str) -> None:
    former = {**IMAGENET, **(cfg.get("normalization") or {})}
    if _same(new, former):
        return
    for place, preprocessor in (
        ("model.data_preprocessor", cfg.model.get("data_preprocessor")),
        ("data_preprocessor", cfg.get("data_preprocessor")),
    ):
        if not preprocessor or preprocessor.get("mean") is None or "num_channels" in preprocessor:
            continue
        now = {key: preprocessor.get(key, IMAGENET[key]) for key in new}
        if not (_same(now, former) or _same(now, IMAGENET)):
            warnings.warn(
                f"{option}: {place} keeps mean={now['mean']}, std={now['std']}, bgr_to_rgb={now['bgr_to_rgb']}, which "
                f"are not the former backbone's; the weights of this one expect {dict(new)}.",
                stacklevel=3,
            )
            continue
        preprocessor.update(new)
    if "normalization" in cfg:
        cfg.normalization = ConfigDict(new)


def _same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    def plain(value: object) -> object:
        return [float(item) for item in value] if isinstance(value, (list, tuple)) else value

    return all(plain(one[key]) == plain(other[key]) for key in other)
