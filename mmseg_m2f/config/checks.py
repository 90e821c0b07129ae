"""The check of a config's types and arguments, before anything is built."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import HOOKS

from mmseg_m2f.config.keys import OWN_KEYS, RUNNER_KEYS, RUNNER_VALUES, TOOL_KEYS
from mmseg_m2f.config.type_lookup import (
    accepted_arguments,
    find_types,
    missing_package,
    nearest_types,
)
from mmseg_m2f.errors import InvalidTypeError, UnknownNameError

# Taken out of a dict by mmengine, mmcv or a model before the class is built, by what is built.
_HOOK_EXTRAS = {"priority"}
_MODULE_EXTRAS = {"requires_grad", "fallback_on_stride", "bg_cls_weight", "scale_factor"}
_INITIALIZER_EXTRAS = {"override", "layer", "name"}
_EXTRAS = {"_scope_", "type"}
_BUILDER_EXTRAS = {
    "param_scheduler": {"convert_to_iter_based", "by_epoch", "begin", "end"},
    "optim_wrapper": {"constructor", "paramwise_cfg", "accumulative_counts"},
}
#: Segmentors that take keys out of the config of a part before they build it: type -> part -> keys.
_SHELL_EXTRAS = {name: {"backbone": {"lora"}} for name in ("MaskSegmentor", "MaskDetector")}
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
    for key in (*RUNNER_KEYS, "tta_model", "tta_pipeline"):
        if key in cfg:
            _check_node(cfg[key], key, scope=scope)


def _check_top_level(cfg: Config) -> None:
    known = (*RUNNER_KEYS, *RUNNER_VALUES, *OWN_KEYS)
    for key in cfg:
        near = [] if key in known or key in TOOL_KEYS else difflib.get_close_matches(key, known, n=1, cutoff=0.85)
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


def _check_node(node: object, path: str, *, scope: str, taken: Collection[str] = ()) -> None:
    """Check a config value and what it holds; whoever builds it takes out the keys `taken`."""
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            _check_node(item, f"{path}[{index}]", scope=scope)
    if not isinstance(node, Mapping):
        return
    scope = node.get("_scope_") or scope
    target = node.get("type")
    find: Sequence[Callable[..., object]] = []
    if isinstance(target, str):
        find = _find_or_raise(target, path, scope=scope)
    elif callable(target):  # a config in pure Python names the class itself
        find = [target]
    _check_arguments(node, path, find=find, taken=taken)
    if isinstance(target, str) and target.rpartition(".")[2] in _FOREIGN_TYPES:
        return
    of_parts = _taken_of_parts(find)
    for key, value in node.items():
        if key not in _FOREIGN_KEYS:
            _check_node(value, f"{path}.{key}", scope=scope, taken=of_parts.get(key, ()))


def _taken_of_parts(targets: Sequence[Callable[..., object]]) -> Mapping[str, Collection[str]]:
    lines = [cls.__name__ for target in targets for cls in getattr(target, "__mro__", ())]
    return next((_SHELL_EXTRAS[name] for name in lines if name in _SHELL_EXTRAS), {})


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


def _check_arguments(
    node: Mapping[str, object], path: str, *, find: Sequence[Callable[..., object]], taken: Collection[str]
) -> None:
    """Raise unless one of the types that the name may stand for takes all the keys of `node` but those `taken`."""
    faults: list[tuple[Callable[..., object], set[str], str]] = []
    for target in find:
        accepted = accepted_arguments(target)
        if accepted is None:
            return
        known = accepted | _consumed(target, path) | {*taken}
        unknown = [key for key in node if key not in known]
        if not unknown:
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
