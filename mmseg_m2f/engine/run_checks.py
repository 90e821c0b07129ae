"""Checks of a config's loops and loaders before anything is built: what never ends, or means another thing."""

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence

from mmengine.config import Config

from mmseg_m2f.errors import InvalidTypeError, InvalidValueError

_NAME_LISTS = ("classes", "thing_classes")


def check_run(cfg: Config, *, loops: Sequence[str]) -> None:
    """Check the loops of a run, and drop loader settings that need workers where there are none.

    Raises:
        TypeError: A list of class names is a string.
        ValueError: An epoch that never ends, or windows that leave pixels out.
    """
    for loop in loops:
        loader = cfg.get(f"{loop}_dataloader")
        if isinstance(loader, MutableMapping):
            check_name_lists(loader.get("dataset"), f"{loop}_dataloader.dataset")
            drop_worker_settings(loader)
    if "train" in loops:
        check_epoch_ends(cfg)
    check_windows(cfg)


def check_name_lists(node: object, path: str) -> None:
    """Raise TypeError where `classes` or `thing_classes` is a string that names no file."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in _NAME_LISTS and isinstance(value, str) and not os.path.isfile(value):
                raise InvalidTypeError(
                    f"{path}.{key}: expected a list of class names, got the string {value!r}, which would be read as "
                    f"{len(value)} classes of one letter. Write {key}=[{value!r}]; a tuple of one needs a comma: "
                    f"({value!r},)."
                )
            check_name_lists(value, f"{path}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            check_name_lists(item, f"{path}[{index}]")


def drop_worker_settings(loader: MutableMapping) -> None:
    """Without workers nothing persists and nothing is fetched ahead; torch refuses both settings."""
    if not loader.get("num_workers", 0):
        loader.pop("persistent_workers", None)
        loader.pop("prefetch_factor", None)


def check_epoch_ends(cfg: Config) -> None:
    """Raise ValueError where a loop over epochs takes its images from a sampler that never ends."""
    train_cfg, loader = cfg.get("train_cfg") or {}, cfg.get("train_dataloader") or {}
    by_epoch = _bare_name(train_cfg) == "EpochBasedTrainLoop" or ("type" not in train_cfg and train_cfg.get("by_epoch"))
    if not by_epoch:
        return
    for key in ("batch_sampler", "sampler"):
        sampler = loader.get(key)
        if isinstance(sampler, Mapping) and _bare_name(sampler).startswith("Infinite"):
            remedy = (
                "train_dataloader.sampler.type=mmengine.DefaultSampler"
                if key == "sampler"
                else "train_dataloader.batch_sampler=None train_dataloader.sampler.type=mmengine.DefaultSampler"
            )
            raise InvalidValueError(
                f"train_cfg counts epochs, but train_dataloader.{key} is {_bare_name(sampler)}, which never ends an "
                f"epoch; expected a sampler that does. Set {remedy}, or count iterations with train_cfg.type="
                "mmengine.IterBasedTrainLoop and train_cfg.max_iters."
            )


def check_windows(cfg: Config) -> None:
    """Raise ValueError where sliding windows are further apart than they are large."""
    for path, node in _walk(cfg.get("model"), "model"):
        if node.get("mode") != "slide" or not node.get("crop_size") or not node.get("stride"):
            continue
        crop, stride = (_pair(node[key]) for key in ("crop_size", "stride"))
        if any(not 0 < step <= side for step, side in zip(stride, crop, strict=True)):
            raise InvalidValueError(
                f"{path}.stride is {stride}, {path}.crop_size is {crop}; expected strides of at least 1 and at most "
                "the crop, else no window sees the pixels between. Set the stride to about two thirds of the crop."
            )


def _walk(node: object, path: str) -> Iterator[tuple[str, Mapping]]:
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            yield from _walk(value, f"{path}.{key}")


def _pair(size: object) -> tuple[int, int]:
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def _bare_name(node: Mapping) -> str:
    kind = node.get("type", "")
    return kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")
