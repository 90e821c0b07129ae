"""Top-level variables of configs: options are applied; a variable that nothing reads is refused.

In configs of other packages it is only named in a warning: many that mmseg and mmdet ship have some.
"""

import copy
import sysconfig
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from mmseg_m2f.config.keys import READ_KEYS
from mmseg_m2f.config.nodes import config_nodes, find_place
from mmseg_m2f.config.options import OPTIONS, apply_layer, in_use, nearest_keys
from mmseg_m2f.config.schedules import last_end, scale_to_loop
from mmseg_m2f.config.sources import Source, fields, leaves, value_before
from mmseg_m2f.errors import InvalidValueError, UnknownNameError
from mmseg_m2f.models.image_pipeline import inner_dataset

#: Single numbers, which a config that reads its own variable still has to use as they are.
_PLAIN = ("num_classes", "crop_size", "batch_size", "max_iters", "val_interval", "num_queries")


def apply_variables(cfg: Config, source: Source) -> None:
    """Apply the options that a config, or one that it is based on, sets at its top.

    A config's own settings of single keys win over what an option makes of them. Variables that a config reads itself
    are its own business, but a number among them must be the one in use.

    Raises:
        ValueError: An option cannot be applied, contradicts another setting, or is not the value in use.
    """
    files = leaves(source)
    claimed: set[str] = set()
    layers: list[tuple[Source, dict[str, object]]] = []
    for file in files:  # the config first: it wins over those that it is based on
        own = [name for name in OPTIONS if name in file.assigned and name not in claimed and name in cfg]
        claimed |= set(own)
        layers.append((file, {name: _value(cfg, file, name) for name in own if name not in file.own_reads}))
    original = Config(copy.deepcopy(cfg._cfg_dict.to_dict())) if any(named for _, named in layers) else cfg
    for file, named in layers:
        for name in named:
            _restore(cfg, name, value_before(file, name))
    for number in reversed(range(len(layers))):
        file, named = layers[number]
        if named:
            beside = dict(_settings(original, [above for above, _ in layers[: number + 1]]))
            apply_layer(cfg, named, beside, source=str(file.path))
            cfg.update({name: value for name, value in named.items() if name not in cfg and name not in _SPENT})
    _scale_to_own_loop(cfg, files)
    _check_own_numbers(cfg, files)


def check_variables(cfg: Config, source: Source) -> None:
    """Check that everything a config sets at its top is read: by mmengine, by our tools, as an option, or by a file.

    Variables of foreign files are named in one warning. A file is foreign if it belongs to another installed package,
    or if the config's model has no part of this one.

    Raises:
        KeyError: Nothing reads a variable of a file that is not foreign; the message names the nearest that is read.
        ValueError: A file sets `test_pipeline`, and tests use another.
    """
    files = leaves(source)
    read_above = {name for file in files for name in file.base_reads}
    is_ours = _has_own_part(cfg)
    used = loader_pipeline(cfg, "test_dataloader")
    unread: list[str] = []
    for file in files:
        for name in file.assigned:
            if name in file.own_reads | read_above or name in OPTIONS:
                continue
            if name == "test_pipeline" and is_ours and used and cfg.test_pipeline != used:
                raise InvalidValueError(
                    f"{file.path}: test_pipeline is not the pipeline of test_dataloader.dataset, which is the one in "
                    "use. Set val_dataloader.dataset.pipeline and test_dataloader.dataset.pipeline instead."
                )
            if name in READ_KEYS:
                continue
            if is_ours and not _is_of_another_package(file.path):
                raise UnknownNameError(
                    f"{file.path}: nothing reads the top-level variable '{name}'. {nearest_keys(name)} Correct or "
                    "delete it."
                )
            unread.append(name)
    if unread:
        warnings.warn(
            f"{source.path}: nothing reads the top-level variables {', '.join(dict.fromkeys(unread))}; they have no "
            "effect. Delete them if you meant to change something by them.",
            stacklevel=3,
        )


def loader_pipeline(cfg: Config, loader: str) -> object:
    """The pipeline of a loader's dataset; None if there is none."""
    return inner_dataset((cfg.get(loader) or {}).get("dataset") or {}).get("pipeline")


#: Options whose value says nothing once they are applied.
_SPENT = ("data", "pretrained", "backbone")


def _has_own_part(cfg: Config) -> bool:
    """Whether a part of the model, or the scope that its parts are looked up in, is this package's."""
    types = (str(node.get("type")) for node in config_nodes(cfg.get("model")))
    return cfg.get("default_scope") == "mmseg_m2f" or any(name.startswith("mmseg_m2f.") for name in types)


def _is_of_another_package(path: Path) -> bool:
    """Whether a config came with an installed package other than this one."""
    path, own = path.resolve(), Path(__file__).resolve().parents[1]
    installed = (Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib"))
    return not path.is_relative_to(own) and any(map(path.is_relative_to, installed))


def _value(cfg: Config, file: Source, name: str) -> object:
    """What a file sets; of a dict, which is merged with that of the bases, the entries of the file."""
    value = cfg[name]
    entries = fields(file.assigned[name]) if isinstance(value, Mapping) else None
    if entries is None or not isinstance(value, Mapping):
        return value
    if "_delete_" in entries:
        return dict(value, _delete_=True)
    return {key: value[key] for key in entries if key in value} or value


def _restore(cfg: Config, name: str, value: object) -> None:
    if value is None:
        cfg.pop(name)
    else:
        cfg[name] = value


def _settings(original: Config, files: Sequence[Source]) -> Iterator[tuple[str, object]]:
    """The single keys that files set to constants, with the values that hold in the end."""
    for key in dict.fromkeys(key for file in files for key in file.constants):
        first, _, last = key.rpartition(".")
        place = find_place(original, first) if first else None
        if key.split(".")[0] in READ_KEYS and isinstance(place, Mapping) and last in place:
            yield key, place[last]


def _scale_to_own_loop(cfg: Config, files: Sequence[Source]) -> None:
    """Scale the schedules of the bases where a config sets nothing but the length of its loop."""
    for number, file in enumerate(files):
        below = [above for above in files[: number + 1] if {"param_scheduler", "max_iters"} & set(above.assigned)]
        if "train_cfg.max_iters" not in file.constants or below:
            continue
        loop = value_before(file, "train_cfg")
        before = loop.get("max_iters") if isinstance(loop, Mapping) else None
        if before is not None and before == last_end(cfg):
            scale_to_loop(cfg, before, source=f"{file.path}:")
        return


def _check_own_numbers(cfg: Config, files: Sequence[Source]) -> None:
    seen: set[str] = set()
    for file in files:
        for name in _PLAIN:
            if name not in file.assigned or name in seen:
                continue
            seen.add(name)
            used, said = in_use(cfg, name), cfg.get(name)
            if name in file.own_reads and used is not None and _plain(said) != _plain(used):
                raise InvalidValueError(
                    f"{file.path}: the top-level variable {name} is {said}, but the value in use is {used}. "
                    f"The file reads the variable itself, so it reaches only the places that name it. Set {name} "
                    "without reading it: then it reaches all places that depend on it."
                )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
