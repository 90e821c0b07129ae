"""Changing the size of what a config trains on, and of everything that has the same size for that reason."""

from collections.abc import MutableMapping, Sequence
from typing import TypeGuard

from mmengine.config import Config

from mmseg_m2f.config.nodes import LOADERS, config_nodes, hold, is_a, short_type
from mmseg_m2f.errors import InvalidValueError

_RESIZES = ("RandomResize", "Resize")
_CROPS = ("RandomCrop", "MagnifiedCrop")


def set_crop_size(cfg: Config, crop_size: int | Sequence[int]) -> None:
    """Train on crops of another size.

    The size reaches random crops, generated scenes, padding in the training pipeline, resizing to exactly the former
    crop, the size of batches (`size`, `BatchFixedSizePad`, `pad_size_divisor`), backbones and decoders that are built
    for one size, and windows of tests, whose stride scales.

    Args:
        crop_size: Height and width in pixels, or one number for both.

    Raises:
        ValueError: No size, or nothing in the training data that has one.
    """
    new = _read_size(crop_size)
    old = crop_in_use(cfg)
    places = _training_places(cfg)
    if not places:
        raise InvalidValueError(
            f"crop_size={new}: expected a RandomCrop, padding or generated scenes in train_dataloader, got none. "
            "Leave the option out, or set the size of the images with --cfg-options."
        )
    for node, key in places:
        node[key] = new[::-1] if _width_comes_first(node) else new
    if old is not None:
        for loader in LOADERS:
            for node in config_nodes(cfg.get(loader)):
                if short_type(node) in _RESIZES and _is_size(node.get("scale")) and tuple(node["scale"]) == old[::-1]:
                    node["scale"] = new[::-1]
    for preprocessor in (cfg.model.get("data_preprocessor"), cfg.get("data_preprocessor")):
        _set_batch_size(preprocessor or {}, old, new)
    set_model_crop(cfg, old, new)
    hold(cfg, "crop_size", new)


def set_model_crop(cfg: Config, old: tuple[int, int] | None, new: tuple[int, int]) -> None:
    """Fit the parts of a model that are built for the size of the crops, and the windows of tests."""
    model = cfg.model
    for node in config_nodes({key: part for key, part in model.items() if key not in ("train_cfg", "test_cfg")}):
        for key in ("img_size", "crop_size"):
            if key in node:
                node[key] = new if _is_size(node[key]) or new[0] != new[1] else new[0]
    windows = model.get("test_cfg") or {}
    if not _is_size(windows.get("crop_size")) or (old is not None and tuple(windows["crop_size"]) != old):
        return  # windows of a size of their own
    before = tuple(windows["crop_size"])
    if _is_size(windows.get("stride")):
        windows["stride"] = tuple(
            max(round(step * side / former), 1)
            for step, side, former in zip(windows["stride"], new, before, strict=True)
        )
    windows["crop_size"] = new


def crop_in_use(cfg: Config) -> tuple[int, int] | None:
    """Height and width of what a config trains on; None where the images keep their size."""
    for node, key in _training_places(cfg):
        if _is_size(node[key]):
            size = tuple(map(int, node[key]))
            return size[::-1] if _width_comes_first(node) else size  # type: ignore[return-value]
    return None


def _training_places(cfg: Config) -> list[tuple[MutableMapping, str]]:
    """Where training images get their size, and the size of generated scenes in any loop."""
    training = list(config_nodes(cfg.get("train_dataloader")))
    places = [(node, "crop_size") for node in training if _is_crop(node)]
    places += [(node, "image_size") for key in LOADERS for node in config_nodes(cfg.get(key)) if "image_size" in node]
    places += [(node, "size") for node in training if is_a(node, "Pad") and node.get("size")]
    return places


def _width_comes_first(node: MutableMapping) -> bool:
    """Whether a transform's size is (width, height): mmengine's padding, mmdet's crop."""
    return is_a(node, "Pad") or node.get("type") == "mmdet.RandomCrop"


def _is_crop(node: MutableMapping) -> bool:
    return "crop_size" in node and any(is_a(node, name) for name in _CROPS)


def _set_batch_size(preprocessor: MutableMapping, old: tuple[int, int] | None, new: tuple[int, int]) -> None:
    for node in (preprocessor, *(preprocessor.get("batch_augments") or ())):
        if node.get("size"):
            node["size"] = new
    divisor = preprocessor.get("pad_size_divisor")
    if divisor and old == (divisor, divisor):  # images are padded to the square that positions are learnt for
        if new[0] != new[1]:
            raise InvalidValueError(
                f"crop_size={new}: images are padded to multiples of pad_size_divisor={divisor}, the side of the "
                "square crops; expected a square crop. Give one number."
            )
        preprocessor["pad_size_divisor"] = new[0]


def _read_size(value: object) -> tuple[int, int]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if not _is_size(value) or min(value) < 1:
        raise InvalidValueError(
            f"crop_size={value}: expected height and width in pixels, as crop_size=512,1024, or one number."
        )
    return (value[0], value[1])


def _is_size(value: object) -> TypeGuard[Sequence[int]]:
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(side, int) and not isinstance(side, bool) for side in value)
    )
