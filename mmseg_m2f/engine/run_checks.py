"""Checks of a config's loops and loaders before anything is built: what never ends, or means another thing."""

import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from mmseg_m2f.config.nodes import classes_of, config_nodes, is_a, leaf_datasets, short_type
from mmseg_m2f.engine.best_checkpoint import complete_best_rules
from mmseg_m2f.errors import InvalidTypeError, InvalidValueError

_NAME_LISTS = ("classes", "thing_classes")


def check_run(cfg: Config, *, loops: Sequence[str]) -> None:
    """Check the loops of a run, drop loader settings that need workers where there are none, and complete `save_best`.

    Raises:
        TypeError: A list of class names is a string.
        ValueError: An epoch that never ends, windows that leave pixels out, a figure of `save_best` of which it is not
            known what is better, or classes to be balanced that a data set does not list.
    """
    for loop in loops:
        loader = cfg.get(f"{loop}_dataloader")
        if isinstance(loader, MutableMapping):
            check_name_lists(loader.get("dataset"), f"{loop}_dataloader.dataset")
            drop_worker_settings(loader)
        check_balanced_datasets(cfg, loop)
    if "train" in loops:
        check_epoch_ends(cfg)
        complete_best_rules(cfg)
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


def check_balanced_datasets(cfg: Config, loop: str) -> None:
    """Raise ValueError where `ClassBalancedDataset` asks a data set for its classes that does not list them."""
    for node in config_nodes((cfg.get(f"{loop}_dataloader") or {}).get("dataset")):
        if not is_a(node, "ClassBalancedDataset"):
            continue
        for path, leaf in leaf_datasets(node.get("dataset"), f"{loop}_dataloader.dataset.dataset"):
            if any(getattr(kind, "get_cat_ids", None) is BaseDataset.get_cat_ids for kind in classes_of(leaf, cfg)):
                raise InvalidValueError(
                    f"{path}: ClassBalancedDataset expected a data set that lists the classes of each image "
                    f"(get_cat_ids), got {short_type(leaf)}, whose label maps would all have to be read first. Take "
                    "the data set without it (cat_max_ratio of mmseg.RandomCrop keeps single classes from filling "
                    "crops), or a subclass with get_cat_ids(index)."
                )


def check_epoch_ends(cfg: Config) -> None:
    """Raise ValueError where a loop over epochs takes its images from a sampler that never ends."""
    train_cfg, loader = cfg.get("train_cfg") or {}, cfg.get("train_dataloader") or {}
    by_epoch = short_type(train_cfg) == "EpochBasedTrainLoop" or ("type" not in train_cfg and train_cfg.get("by_epoch"))
    if not by_epoch:
        return
    for key in ("batch_sampler", "sampler"):
        sampler = loader.get(key)
        if isinstance(sampler, Mapping) and short_type(sampler).startswith("Infinite"):
            remedy = (
                "train_dataloader.sampler.type=mmengine.DefaultSampler"
                if key == "sampler"
                else "train_dataloader.batch_sampler=None train_dataloader.sampler.type=mmengine.DefaultSampler"
            )
            raise InvalidValueError(
                f"train_cfg counts epochs, but train_dataloader.{key} is {short_type(sampler)}, which never ends an "
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
