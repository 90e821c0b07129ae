"""The check of the folders and lists that a config's datasets read, before anything is built."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from mmengine.config import Config

from mmseg_m2f.config.nodes import leaf_datasets
from mmseg_m2f.config.type_lookup import default_argument, find_types
from mmseg_m2f.errors import MissingFileError
from mmseg_m2f.files import is_remote

Loop = Literal["train", "val", "test"]


def check_data_paths(cfg: Config, *, loops: Sequence[Loop] = ("train", "val", "test")) -> None:
    """Check that the folders and lists of every dataset of the loops exist, and that some image lies in them.

    Datasets without `data_root`, and remote ones, are passed over.

    Raises:
        FileNotFoundError: One is missing; the message says which key sets it.
    """
    for loop in loops:
        dataset = (cfg.get(f"{loop}_dataloader") or {}).get("dataset")
        for path, leaf in leaf_datasets(dataset, f"{loop}_dataloader.dataset"):
            _check_dataset_paths(leaf, path, shared_root=cfg.get("data_root"))
            _check_some_image(leaf, path, scope=cfg.get("default_scope") or "mmengine")


def _check_dataset_paths(dataset: Mapping, path: str, *, shared_root: str | None) -> None:
    root = dataset.get("data_root")
    if not isinstance(root, str) or not root or is_remote(root):
        return
    shared = root == shared_root
    _check_exists(root, f"{path}.data_root", option="data_root" if shared else f"{path}.data_root")
    prefixes = dataset.get("data_prefix") or {}
    parts = {f"data_prefix.{key}": value for key, value in prefixes.items()}
    parts["ann_file"] = dataset.get("ann_file")
    for key, value in parts.items():
        if isinstance(value, str) and value and not is_remote(value):
            _check_exists(os.path.join(root, value), f"{path}.{key}", option=f"{path}.{key}")


def _check_some_image(dataset: Mapping, path: str, *, scope: str) -> None:
    """Raise where the image folder has no file of the dataset's suffix: mmengine fails on that with an array error."""
    folder = (dataset.get("data_prefix") or {}).get("img_path")
    root = dataset.get("data_root") or ""
    if not isinstance(folder, str) or dataset.get("ann_file") or is_remote(root) or is_remote(folder):
        return
    target = dataset["type"]
    classes = find_types(target, scope=scope) if isinstance(target, str) else [target]
    suffix = dataset.get("img_suffix") or next(filter(None, (default_argument(c, "img_suffix") for c in classes)), None)
    place = Path(root, folder)
    if not isinstance(suffix, str) or not place.is_dir() or any(place.rglob(f"*{suffix}")):
        return
    others = sorted({file.suffix for file in place.rglob("*") if file.is_file()})
    found = f"only {', '.join(others)}" if others else "an empty folder"
    raise MissingFileError(
        f"{path}.data_prefix.img_path: expected files '*{suffix}' below '{place}', got {found}. "
        f"Set {path}.img_suffix, or the folder."
    )


def _check_exists(place: str, key: str, *, option: str) -> None:
    if os.path.exists(place):
        return
    parent = Path(place).parent
    beside = f" ({parent} holds: {', '.join(sorted(os.listdir(parent))[:8]) or 'nothing'})" if parent.is_dir() else ""
    raise MissingFileError(
        f"{key}: expected an existing path, got '{place}', which does not exist from the working directory "
        f"{os.getcwd()}{beside}. Set it with --cfg-options {option}=PATH, or put the data there."
    )
