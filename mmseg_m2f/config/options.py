"""What the command line may change in a config."""

import copy
import difflib
import re
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmseg_m2f.config.checks import builder_keys
from mmseg_m2f.config.type_lookup import accepted_arguments, find_types
from mmseg_m2f.errors import InvalidValueError, MissingFileError
from mmseg_m2f.models.feature_spec import probe_feature_spec

Options = Mapping[str, object]


def apply_options(cfg: Config, options: Options) -> None:
    """Change the config of a file as the command line asks.

    Three options do more than set one key:

    - `data_root=PATH` also reaches every dataset that used the config's previous `data_root`.
    - `backbone=NAME` replaces `model.backbone` by the ingredient `_base_/backbones/NAME.py`, or by that of a path;
      between two of one type, `img_size` stays; per-pixel heads, or the neck, get its channels.
    - `PART.type=CLASS` keeps the arguments that the new class takes and drops the others, with a note.

    Args:
        options: Dotted keys and their values, as mmengine's `DictAction` parses them.

    Raises:
        ValueError: `data_root` or `backbone` cannot be applied.
    """
    options = dict(options)
    other_backbone = isinstance(options.get("backbone"), str)
    if other_backbone:
        _replace_backbone(cfg, str(options.pop("backbone")), beside=Path(cfg.filename))
    if "data_root" in options:
        _replace_data_root(cfg, str(options.pop("data_root")))
    for key, value in options.items():
        if isinstance(value, str) and key.endswith(".type"):
            _change_type(cfg, key.removesuffix(".type"), value)
    cfg.merge_from_dict(options)
    if other_backbone:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
            _fit_channels(cfg.model)
        cfg.merge_from_dict(options)  # channels that are given stay


def drop_initial_weights(model: ConfigDict) -> None:
    """Let a model, or a part of one, that a checkpoint is about to fill be built without fetching initial weights."""
    for node in config_nodes(model):
        node.pop("init_cfg", None)
        node.pop("checkpoint_path", None)
        if node.get("pretrained"):
            node["pretrained"] = False if node["pretrained"] is True else None


def config_nodes(node: object) -> Iterator[MutableMapping]:
    """Every dict in a config, the outer one first."""
    if isinstance(node, MutableMapping):
        yield node
        for value in node.values():
            yield from config_nodes(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from config_nodes(value)


def _replace_backbone(cfg: Config, name: str, *, beside: Path) -> None:
    """Put the `backbone` of an ingredient in the place of the model's."""
    file = Path(name) if name.endswith(".py") else _find_ingredient(name, beside=beside)
    if not file.is_file():
        raise MissingFileError(f"backbone={name}: expected an ingredient file, got none at {file.resolve()}.")
    backbone = Config.fromfile(file).get("backbone")
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
    if "img_size" in old and old.get("type") == new.type:
        new.setdefault("img_size", old["img_size"])  # that of the crop, which stays
    cfg.model.backbone = new
    if "backbone" in cfg:
        cfg.backbone = ConfigDict(new)


def _fit_channels(model: ConfigDict) -> None:
    """Tell the parts of mmseg that cannot ask the backbone for its channels; ours ask when they are built."""
    neck = model.get("neck")
    heads = [] if neck else [model.get(name) or [] for name in ("decode_head", "auxiliary_head")]
    listed = [head for part in heads for head in (part if isinstance(part, list) else [part])]
    readers = [node for head in listed if "in_channels" in (node := head.get("host", head))]
    neck_reads_all = bool(neck) and isinstance(neck.get("in_channels"), (list, tuple))
    if not readers and not neck_reads_all:
        return
    backbone = copy.deepcopy(model.backbone)
    drop_initial_weights(backbone)
    built = MODELS.build(backbone)
    channels = probe_feature_spec(built, built).channels
    if neck_reads_all:
        neck.in_channels = list(channels)
    for node in readers:
        several = isinstance(node.in_channels, (list, tuple))
        index = node.get("in_index", range(len(node.in_channels)) if several else -1)
        needed = max(index) if several else index
        if not -len(channels) <= needed < len(channels):
            raise InvalidValueError(
                f"backbone={type(built).__name__}: {node.type} reads map {needed} (in_index), but the backbone gives "
                f"{len(channels)}. Set model.backbone.out_indices or the head's in_index."
            )
        node.in_channels = [channels[i] for i in index] if several else channels[index]
        if "c1_in_channels" in node:  # DeepLabV3+ reads the finest map as well
            node.c1_in_channels = channels[0]


def _find_ingredient(name: str, *, beside: Path) -> Path:
    folders = [parent / "_base_" / "backbones" for parent in beside.resolve().parents]
    known = {file.stem: file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.py"))}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
    raise InvalidValueError(
        f"backbone={name}: expected the name of a file in _base_/backbones or a path to one. "
        f"Nearest: {', '.join(near) or f'none, {beside} has no _base_/backbones above it'}."
    )


def _replace_data_root(cfg: Config, data_root: str) -> None:
    """Set `data_root` wherever the previous one stands, alone or at the beginning of a path."""
    nodes = [node for value in cfg.values() for node in config_nodes(value)]
    previous = cfg.get("data_root") or next((node["data_root"] for node in nodes if node.get("data_root")), None)
    if previous is None:
        raise InvalidValueError(
            f"data_root={data_root}: no dataset of {cfg.filename} has a data_root; expected one that reads files. "
            "Leave the option out, or choose a config with such a dataset."
        )
    start = re.compile(re.escape(previous.rstrip("/")) + "(?=/|$)")
    for node in nodes:
        for key, value in node.items():
            if isinstance(value, str) and (found := start.match(value)):
                node[key] = data_root.rstrip("/") + value[found.end() :]
    if "data_root" in cfg:
        cfg.data_root = data_root


def _change_type(cfg: Config, part: str, name: str) -> None:
    """Drop the arguments of `part` that its new class does not take."""
    node: object = cfg
    for key in part.split("."):
        if isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            node = node.get(key) if isinstance(node, (Config, Mapping)) else None
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
            stacklevel=3,
        )
