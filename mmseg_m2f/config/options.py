"""Options: quantities that reach everything that depends on them, on the command line and at the top of a config."""

import copy
import difflib
import warnings
from collections.abc import Callable, Mapping, MutableMapping

from mmengine.config import Config, ConfigDict

from mmseg_m2f.checkpoints.whole_models import is_whole_model_address
from mmseg_m2f.config.channels import channels_in_use, set_channels
from mmseg_m2f.config.checks import builder_keys
from mmseg_m2f.config.class_names import classes_in_use, set_class_names, set_num_classes, set_thing_classes
from mmseg_m2f.config.crops import crop_in_use, set_crop_size
from mmseg_m2f.config.fine_tuning import ema_in_use, set_ema, set_layer_decay
from mmseg_m2f.config.initial_weights import set_pretrained
from mmseg_m2f.config.keys import OWN_KEYS, READ_KEYS, RUNNER_KEYS, RUNNER_VALUES, TOOL_KEYS
from mmseg_m2f.config.nodes import classes_of, config_nodes, find_place, hold
from mmseg_m2f.config.own_data import use_own_data
from mmseg_m2f.config.schedules import (
    last_end,
    scale_to_loop,
    set_lr,
    set_max_iters,
    set_val_interval,
)
from mmseg_m2f.config.swap_backbone import fit_channels, replace_backbone
from mmseg_m2f.config.swap_data import replace_data, set_batch_size, set_data_root
from mmseg_m2f.config.trackers import add_trackers
from mmseg_m2f.config.type_lookup import accepted_arguments, find_types
from mmseg_m2f.config.window_options import (
    set_window_overlap,
    set_window_scale,
    set_window_size,
    window_overlap,
    window_size,
)
from mmseg_m2f.errors import InvalidValueError, UnknownNameError

Options = Mapping[str, object]


def set_num_queries(cfg: Config, num_queries: int) -> None:
    """Give the model so many queries.

    Raises:
        ValueError: Fewer than one, or a model whose queries have no number of their own.
    """
    if isinstance(num_queries, bool) or not isinstance(num_queries, int) or num_queries < 1:
        raise InvalidValueError(f"num_queries={num_queries}: expected at least 1 query.")
    nodes = [node for node in config_nodes(cfg.model) if "num_queries" in node]
    if not nodes:
        decoder = find_place(cfg, "model.decode_head.query_decoder")
        takers = classes_of(decoder, cfg) if isinstance(decoder, MutableMapping) else []
        if not any("num_queries" in (accepted_arguments(target) or ()) for target in takers):
            raise InvalidValueError(
                f"num_queries={num_queries}: expected a model with num_queries, got {cfg.model.get('type')} whose "
                "decode head has none: it classifies pixels, or has one query for each class. Leave the option out."
            )
        nodes = [decoder]  # type: ignore[list-item]
    for node in nodes:
        node["num_queries"] = num_queries
    hold(cfg, "num_queries", num_queries)


def _set_data(cfg: Config, value: object) -> None:
    """An ingredient by name or file; or own data, by a folder (a path with a slash) or by settings with `root`."""
    if isinstance(value, Mapping) and "root" in value:
        use_own_data(cfg, value)
    elif not isinstance(value, str):
        raise InvalidValueError(
            f"data={value}: expected the name of an ingredient, a path to one, or data of your own: a folder, or "
            "dict(root=FOLDER, ...). Loaders are set by train_dataloader, val_dataloader and test_dataloader."
        )
    elif "/" in value and not value.endswith(".py"):
        use_own_data(cfg, dict(root=value))
    else:
        replace_data(cfg, value, beside=cfg.filename)


def _set_data_root(cfg: Config, data_root: str) -> None:
    set_data_root(cfg, str(data_root))


def _set_backbone(cfg: Config, value: str | Mapping[str, object]) -> None:
    """An ingredient's name, or settings that the model's backbone takes over."""
    if isinstance(value, str):
        replace_backbone(cfg, value, beside=cfg.filename)
        return
    settings = ConfigDict(copy.deepcopy(dict(value)))
    if settings.pop("_delete_", False):
        cfg.model.backbone = settings
    else:
        if isinstance(settings.get("type"), str):
            _change_type(cfg, "model.backbone", str(settings["type"]))
        cfg.model.backbone = Config._merge_a_into_b(settings, cfg.model.backbone)
    if isinstance(cfg.get("backbone"), Mapping):
        cfg.backbone = copy.deepcopy(cfg.model.backbone)


#: Each option and what applies it, in the order in which they are applied: what is replaced whole comes first.
OPTIONS: Mapping[str, Callable[[Config, object], None]] = {
    "data": _set_data,
    "backbone": _set_backbone,  # type: ignore[dict-item]
    "pretrained": set_pretrained,  # type: ignore[dict-item]
    "channels": set_channels,  # type: ignore[dict-item]
    "data_root": _set_data_root,  # type: ignore[dict-item]
    "num_classes": set_num_classes,  # type: ignore[dict-item]
    "classes": set_class_names,  # type: ignore[dict-item]
    "thing_classes": set_thing_classes,  # type: ignore[dict-item]
    "crop_size": set_crop_size,  # type: ignore[dict-item]
    "window_size": set_window_size,  # type: ignore[dict-item]
    "window_overlap": set_window_overlap,  # type: ignore[dict-item]
    "window_scale": set_window_scale,  # type: ignore[dict-item]
    "batch_size": set_batch_size,  # type: ignore[dict-item]
    "max_iters": set_max_iters,  # type: ignore[dict-item]
    "val_interval": set_val_interval,  # type: ignore[dict-item]
    "lr": set_lr,  # type: ignore[dict-item]
    "layer_decay": set_layer_decay,  # type: ignore[dict-item]
    "ema": set_ema,  # type: ignore[dict-item]
    "num_queries": set_num_queries,  # type: ignore[dict-item]
    "tracker": add_trackers,
}


def apply_options(cfg: Config, options: Options) -> None:
    """Change a config as the command line asks.

    Options (`OPTIONS`) reach everything that depends on them. Any other key is a dotted path to one setting, which
    wins over what an option makes of it; `PART.type=CLASS` keeps the arguments that the new class takes and drops the
    others, with a note; `train_cfg.max_iters` scales the schedules, with a note.

    Args:
        options: Keys and their values, as mmengine's `DictAction` parses them.

    Raises:
        KeyError: Nothing reads a key.
        ValueError, TypeError, FileNotFoundError: An option cannot be applied, or a dotted key contradicts one.
    """
    check_option_keys(cfg, options)
    dotted = {key: value for key, value in options.items() if key not in OPTIONS}
    named = {key: value for key, value in options.items() if key in OPTIONS}
    for key, value in dotted.items():
        if isinstance(value, str) and key.endswith(".type"):
            _change_type(cfg, key.removesuffix(".type"), value)
    length = last_end(cfg)
    loop_length = (cfg.get("train_cfg") or {}).get("max_iters")
    apply_layer(cfg, named, dotted, source="--cfg-options")
    given_schedule = any(key.split(".")[0] in ("param_scheduler", "max_iters") for key in options)
    if "train_cfg.max_iters" in dotted and not given_schedule and length == loop_length:
        scale_to_loop(cfg, loop_length, source="--cfg-options")


def check_option_keys(cfg: Config, options: Options) -> None:
    """Check that something reads what the command line sets.

    Raises:
        KeyError: A key that nothing reads after the files are loaded; the message names the one that is read.
    """
    for key in options:
        first, _, rest = key.partition(".")
        if first == "data_preprocessor" and "data_preprocessor" in (cfg.get("model") or {}):
            raise UnknownNameError(
                f"--cfg-options {key}: the model has a data_preprocessor of its own, so nothing reads this key. "
                f"Set model.{key}."
            )
        if first == "test_pipeline":
            raise UnknownNameError(
                f"--cfg-options {key}: tests use the pipeline of their loader. Set "
                f"val_dataloader.dataset.pipeline{rest and '.' + rest} and "
                f"test_dataloader.dataset.pipeline{rest and '.' + rest}."
            )
        if first in READ_KEYS or (first in OPTIONS and not rest):
            continue
        if first in OPTIONS:
            place = "model." if first == "backbone" else ""
            raise UnknownNameError(
                f"--cfg-options {key}: '{first}' is an option and has no parts. Set {place + key if place else first}."
            )
        if first in cfg:
            raise UnknownNameError(
                f"--cfg-options {key}: '{first}' is a variable that files read while they are loaded; set afterwards, "
                f"nothing reads it. {nearest_keys(first)} Set the part that uses it by its dotted key."
            )
        raise UnknownNameError(f"--cfg-options {key}: nothing reads '{first}'. {nearest_keys(first)}")


def nearest_keys(name: str) -> str:
    """A sentence with the keys near one that nothing reads."""
    known = [*OPTIONS, *RUNNER_KEYS, *RUNNER_VALUES, *TOOL_KEYS, *OWN_KEYS]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"Nearest: {', '.join(near)}." if near else f"Options are {', '.join(OPTIONS)}."


def apply_layer(cfg: Config, named: Options, dotted: Options, *, source: str) -> None:
    """Apply options, then the settings given beside them, which win; variables of the config follow.

    Raises:
        ValueError: A setting contradicts an option; the message starts with `source`.
    """
    before = {name: in_use(cfg, name) for name in OPTIONS}
    order = list(OPTIONS)
    names = named.get("classes")
    if isinstance(names, (list, tuple)) and named.get("num_classes") not in (None, len(names)):
        raise InvalidValueError(
            f"{source}: num_classes={named['num_classes']}, but classes names {len(names)}. Leave num_classes out."
        )
    for name in sorted((name for name in named if name != "num_classes" or "classes" not in named), key=order.index):
        OPTIONS[name](cfg, named[name])
    wanted = {name: in_use(cfg, name) for name in named}
    cfg.merge_from_dict(dict(dotted))
    if "backbone" in named:
        fit_channels(cfg)
        cfg.merge_from_dict(dict(dotted))  # channels that are given stay
    for name in OPTIONS:
        now = in_use(cfg, name)
        if name in named and now != wanted[name] and name not in ("backbone", "data_root"):
            raise InvalidValueError(
                f"{source}: {name}={named[name]} and a setting beside it, which makes it {now}, contradict each other. "
                f"Keep one of both."
            )
        if now is not None and now != before[name] and name not in ("pretrained", "ema"):
            hold(cfg, name, now)


def in_use(cfg: Config, name: str) -> object | None:
    """The value that a config uses of an option; None where it uses none, or it is no single value."""
    if name == "crop_size":
        return crop_in_use(cfg)
    if name == "channels":
        return channels_in_use(cfg)
    if name == "num_classes":
        return classes_in_use(cfg)
    if name == "window_size":
        return window_size(cfg)
    if name == "window_overlap":
        return window_overlap(cfg)
    if name == "num_queries":
        return next((node["num_queries"] for node in config_nodes(cfg.get("model")) if "num_queries" in node), None)
    if name == "pretrained":
        return cfg.get("load_from") if is_whole_model_address(cfg.get("load_from")) else None
    if name == "ema":
        return ema_in_use(cfg)
    place = _PLACES.get(name)
    return None if place is None else find_place(cfg, place)


_PLACES = {
    "batch_size": "train_dataloader.batch_size",
    "lr": "optim_wrapper.optimizer.lr",
    "layer_decay": "optim_wrapper.paramwise_cfg.layer_decay",
    "max_iters": "train_cfg.max_iters",
    "val_interval": "train_cfg.val_interval",
    "thing_classes": "model.thing_classes",
    "window_scale": "model.test_cfg.scale",
}


def _change_type(cfg: Config, part: str, name: str) -> None:
    """Drop the arguments of `part` that its new class does not take."""
    node = find_place(cfg, part)
    found = find_types(name, scope=cfg.get("default_scope") or "mmengine")
    if not isinstance(node, MutableMapping) or not found or node.get("type") == name:
        return
    kept_by_builder = builder_keys(part) | {"type"}
    accepted = [accepted_arguments(target) for target in found]
    dropped = sorted(
        key
        for key in set(node) - kept_by_builder
        if key == "init_cfg" or not any(names is None or key in names for names in accepted)
    )
    for key in dropped:
        del node[key]
    if dropped:
        kept = sorted(set(node) - {"type"})
        warnings.warn(
            f"{part}.type={name} drops the arguments of the former type: {', '.join(dropped)}; "
            f"it keeps {', '.join(kept) or 'none'}. Give others as {part}.NAME=VALUE.",
            stacklevel=4,
        )
