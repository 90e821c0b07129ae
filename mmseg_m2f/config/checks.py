"""Checks before anything is built: the config's types and arguments, the data's folders, files of initial weights.

Each raises an error that says where, what was expected, what was found, and what to do.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import HOOKS

from mmseg_m2f.checkpoints.checking import check_checkpoint, missing_file_message
from mmseg_m2f.config.type_lookup import (
    accepted_arguments,
    default_argument,
    find_types,
    missing_package,
    nearest_types,
)
from mmseg_m2f.errors import InvalidTypeError, MissingFileError, UnknownNameError
from mmseg_m2f.files import is_remote

Loop = Literal["train", "val", "test"]

# What mmengine's Runner reads from a config. Other top-level names are helper variables.
_RUNNER_KEYS = (
    *("model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"),
    *("val_evaluator", "test_evaluator", "default_hooks", "custom_hooks", "visualizer", "log_processor"),
    *("model_wrapper_cfg", "env_cfg"),
)
_TOOL_KEYS = ("tta_model", "tta_pipeline", "test_pipeline")  # read by our tools and by mmseg's
_RUNNER_VALUES = (
    *("work_dir", "load_from", "resume", "launcher", "log_level", "default_scope", "randomness"),
    *("experiment_name", "custom_imports", "sync_bn", "find_unused_parameters", "runner_type"),
    *("activation_checkpointing", "efficient_conv_bn_eval", "compile"),
)
# Taken out of a dict by mmengine, mmcv or a model before the class is built, by what is built.
_HOOK_EXTRAS = {"priority"}
_MODULE_EXTRAS = {"requires_grad", "fallback_on_stride", "bg_cls_weight", "scale_factor"}
_INITIALIZER_EXTRAS = {"override", "layer", "name"}
_EXTRAS = {"_scope_", "type"}
_BUILDER_EXTRAS = {
    "param_scheduler": {"convert_to_iter_based", "by_epoch", "begin", "end"},
    "optim_wrapper": {"constructor", "paramwise_cfg", "accumulative_counts"},
}
# Keys whose `type` names something outside the registries.
_FOREIGN_KEYS = {"roi_layer", "metainfo"}
_FOREIGN_TYPES = {"Albu"}  # lists transforms of albumentations


def check_config(cfg: Config) -> None:
    """Check that every `type` below the Runner's keys is known and takes the arguments given to it.

    Arguments of classes that swallow `**kwargs` are not checked, nor is anything in helper variables.

    Raises:
        KeyError: An unknown `type`, or a top-level key that is nearly one of the Runner's.
        TypeError: An argument that the class does not take.
    """
    _check_top_level(cfg)
    scope = cfg.get("default_scope") or "mmengine"
    for key in (*_RUNNER_KEYS, "tta_model", "tta_pipeline"):
        if key in cfg:
            _check_node(cfg[key], key, scope=scope)


def check_data_paths(cfg: Config, *, loops: Sequence[Loop] = ("train", "val", "test")) -> None:
    """Check that the folders and lists of every dataset of the loops exist, and that some image lies in them.

    Datasets without `data_root`, and remote ones, are passed over.

    Raises:
        FileNotFoundError: One is missing; the message says which key sets it.
    """
    for loop in loops:
        dataset = (cfg.get(f"{loop}_dataloader") or {}).get("dataset")
        for path, leaf in _leaf_datasets(dataset, f"{loop}_dataloader.dataset"):
            _check_dataset_paths(leaf, path, shared_root=cfg.get("data_root"))
            _check_some_image(leaf, path, scope=cfg.get("default_scope") or "mmengine")


def check_initial_weights(cfg: Config) -> None:
    """Check the files that parts of the model start from, as `check_checkpoint` does; remote ones are passed over.

    Raises:
        FileNotFoundError, ValueError: A file is missing or refused; the message says which key names it.
    """
    for path, switch, file in _initial_files(cfg.get("model"), "model"):
        if not isinstance(file, str) or is_remote(file):
            continue
        try:
            if not Path(file).is_file():
                raise MissingFileError(missing_file_message(Path(file)))
            if not file.endswith(".safetensors"):  # a format that holds nothing but arrays
                check_checkpoint(file)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(
                f"{path}: {error} To start from random weights instead, add --cfg-options {switch}=None."
            ) from error


def _initial_files(node: object, path: str) -> Iterator[tuple[str, str, object]]:
    """Where a file is named, the key that turns it off, and the file; `checkpoint_path` is timm's key."""
    if isinstance(node, Mapping):
        if "init_cfg" in path.rpartition(".")[2] and "checkpoint" in node:
            yield f"{path}.checkpoint", path.partition("[")[0], node["checkpoint"]
        if "checkpoint_path" in node:
            yield f"{path}.checkpoint_path", f"{path}.checkpoint_path", node["checkpoint_path"]
        for key, value in node.items():
            yield from _initial_files(value, f"{path}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _initial_files(value, f"{path}[{index}]")


def _check_top_level(cfg: Config) -> None:
    known = (*_RUNNER_KEYS, *_RUNNER_VALUES)
    for key in cfg:
        near = [] if key in known or key in _TOOL_KEYS else difflib.get_close_matches(key, known, n=1, cutoff=0.85)
        if near and not key.startswith(f"{near[0]}_"):  # `val_evaluator_coco` is a name of its own
            raise UnknownNameError(
                f"Config {cfg.filename}: the top-level key '{key}' is not read by the Runner; expected '{near[0]}'. "
                f"Rename it, or if it is a helper variable give it a name less like '{near[0]}'."
            )
    if "model" not in cfg:
        raise UnknownNameError(
            f"Config {cfg.filename}: expected a top-level key 'model', got {sorted(cfg)}. "
            "Pass a complete config (a leaf), not an ingredient from _base_."
        )


def _check_node(node: object, path: str, *, scope: str) -> None:
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            _check_node(item, f"{path}[{index}]", scope=scope)
    if not isinstance(node, Mapping):
        return
    scope = node.get("_scope_") or scope
    target = node.get("type")
    if isinstance(target, str):
        _check_arguments(node, path, find=_find_or_raise(target, path, scope=scope))
        if target.rpartition(".")[2] in _FOREIGN_TYPES:
            return
    elif callable(target):  # a config in pure Python names the class itself
        _check_arguments(node, path, find=[target])
    for key, value in node.items():
        if key not in _FOREIGN_KEYS:
            _check_node(value, f"{path}.{key}", scope=scope)


def _find_or_raise(name: str, path: str, *, scope: str) -> list[Callable[..., object]]:
    found = find_types(name, scope=scope)
    # `type='nms'` or `'conv'`: a switch of the class above that mmdet keeps outside the registries.
    if found or (name.isidentifier() and name.islower()):
        return found
    if install := missing_package(name):
        package = name.partition(".")[0]
        raise UnknownNameError(
            f"{path}.type is '{name}', but the package '{package}' is not installed. Install it with `{install}`, "
            "or correct the scope before the dot."
        )
    near = nearest_types(name, scopes=("mmseg_m2f", scope, name.partition(".")[0], "mmseg", "mmdet"))
    nearest = f"Nearest names: {', '.join(near)}." if near else "No registered name is near."
    raise UnknownNameError(
        f"{path}.type: expected a registered name, got '{name}'"
        f"{'' if '.' in name else f' (looked up in scope {scope!r})'}. {nearest} Correct the spelling or the scope; "
        "for a module of your own, import it with custom_imports = dict(imports=['your.module'])."
    )


def _check_arguments(node: Mapping[str, object], path: str, *, find: Sequence[Callable[..., object]]) -> None:
    """Raise unless one of the types that the name may stand for takes all the keys of `node`."""
    faults: list[tuple[Callable[..., object], set[str], str]] = []
    for target in find:
        accepted = accepted_arguments(target)
        unknown = [] if accepted is None else [k for k in node if k not in accepted | _consumed(target, path)]
        if accepted is None or not unknown:
            return
        faults.append((target, accepted, unknown[0]))
    if not faults:
        return
    target, accepted, unknown_key = faults[0]
    near = difflib.get_close_matches(unknown_key, accepted, n=3, cutoff=0.6)
    hint = f"Nearest: {', '.join(near)}." if near else f"It takes: {', '.join(sorted(accepted)) or 'nothing'}."
    name = getattr(target, "__name__", str(target))
    raise InvalidTypeError(
        f"{path}.{unknown_key}: {name} takes no argument '{unknown_key}'. {hint} "
        f"Correct the name or remove it (--cfg-options and _base_ files merge into the same dict)."
    )


def _consumed(target: Callable[..., object], path: str) -> set[str]:
    """Keys that are gone from a config dict by the time `target` is called."""
    extras = _EXTRAS | builder_keys(path)
    if isinstance(target, type) and issubclass(target, torch.nn.Module) and not issubclass(target, BaseModule):
        extras |= _MODULE_EXTRAS
    if target in HOOKS.module_dict.values() or "hooks" in path:
        extras |= _HOOK_EXTRAS
    if "init_cfg" in path:
        extras |= _INITIALIZER_EXTRAS
    return extras


def builder_keys(path: str) -> set[str]:
    """Keys that whoever builds the part at a config path takes out of it, whatever its `type`."""
    return _BUILDER_EXTRAS.get(re.split(r"[.\[]", path, maxsplit=1)[0], set())


def _leaf_datasets(dataset: object, path: str) -> Iterator[tuple[str, Mapping]]:
    """The datasets that read data, below wrappers (`dataset` and `datasets` keys), each with its config path."""
    if isinstance(dataset, (list, tuple)):
        for index, item in enumerate(dataset):
            yield from _leaf_datasets(item, f"{path}[{index}]")
    elif isinstance(dataset, Mapping):
        inner = [key for key in ("dataset", "datasets") if key in dataset]
        for key in inner:
            yield from _leaf_datasets(dataset[key], f"{path}.{key}")
        if not inner:
            yield path, dataset


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
