"""Training and testing as the command line does it: config, options, checks, and then mmengine's Runner."""

import difflib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmseg_m2f import compat
from mmseg_m2f.engine.preflight import Loop, check_checkpoint, check_config, check_data_paths, is_remote
from mmseg_m2f.engine.type_lookup import accepted_arguments, find_types

Launcher = Literal["none", "pytorch", "slurm", "mpi"]
Options = Mapping[str, object]

_FIRST_WITH_BFLOAT16 = (8, 0)  # compute capability; older GPUs at best emulate it


def load_config(path: str | os.PathLike[str], options: Options | None = None, *, work_dir: str | None = None) -> Config:
    """The config of a file with command line options merged in.

    Args:
        options: See `apply_options`.
        work_dir: Where a run writes; the config's own `work_dir` if not given, else `work_dirs/<config name>`.

    Raises:
        FileNotFoundError: No such config; the message names the nearest.
        ValueError: `data_root` or `backbone` cannot be applied.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_missing_config_message(path))
    cfg = Config.fromfile(path)
    apply_options(cfg, options or {})
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs") / path.stem)
    return cfg


def apply_options(cfg: Config, options: Options) -> None:
    """Change the config of a file as the command line asks.

    Three options do more than set one key:

    - `data_root=PATH` also reaches every dataset that used the config's previous `data_root`.
    - `backbone=NAME` replaces `model.backbone` by the ingredient `_base_/backbones/NAME.py`, or by that of a path;
      between two of one type, `img_size` stays.
    - `PART.type=CLASS` keeps the arguments that the new class takes and drops the others, with a note.

    Args:
        options: Dotted keys and their values, as mmengine's `DictAction` parses them.

    Raises:
        ValueError: `data_root` or `backbone` cannot be applied.
    """
    options = dict(options)
    if isinstance(options.get("backbone"), str):
        _replace_backbone(cfg, str(options.pop("backbone")), beside=Path(cfg.filename))
    if "data_root" in options:
        _replace_data_root(cfg, str(options.pop("data_root")))
    for key, value in options.items():
        if isinstance(value, str) and key.endswith(".type"):
            _change_type(cfg, key.removesuffix(".type"), value)
    cfg.merge_from_dict(options)


def train(
    config: str | os.PathLike[str],
    options: Options | None = None,
    *,
    work_dir: str | None = None,
    resume: bool | str = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: Launcher = "none",
) -> Runner:
    """Train what a config describes and give the Runner, trained.

    Args:
        options: See `load_config`.
        resume: True continues from the newest complete checkpoint in the work folder, or starts where there is
            none; a path continues from that checkpoint.
        amp: Mixed precision: bfloat16 on the CPU and on GPUs that have it, else float16 with dynamic loss scaling.
        auto_scale_lr: Scale the learning rate from the config's `auto_scale_lr.base_batch_size` to the actual one.

    Raises:
        ValueError, KeyError, TypeError, FileNotFoundError: The checks before the run found a fault.
    """
    cfg = load_config(config, options, work_dir=work_dir)
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _enable_lr_scaling(cfg)
    checkpoint = find_checkpoint(cfg.work_dir) if resume is True else (resume or None)
    cfg.resume = checkpoint is not None
    cfg.load_from = checkpoint or cfg.get("load_from")
    runner = _build_runner(cfg, launcher=launcher, loops=("train", "val"))
    runner.train()
    return runner


def evaluate(
    config: str | os.PathLike[str],
    checkpoint: str,
    options: Options | None = None,
    *,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    launcher: Launcher = "none",
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set and give the metrics.

    Args:
        options: See `load_config`.
        out: Folder for `metrics.json` and the predictions: `labels/`, `panoptic/` with `panoptic.json`,
            `instances.json`.
        show_dir: Folder for one picture per image: input, truth, prediction.
        tta: Average over the views of the config's `tta_pipeline`.

    Raises:
        ValueError, KeyError, TypeError, FileNotFoundError: The checks before the run found a fault.
    """
    cfg = load_config(config, options, work_dir=work_dir)
    cfg.load_from, cfg.resume = checkpoint, False
    drop_initial_weights(cfg)
    if tta:
        _use_tta(cfg)
    hooks = list(cfg.get("custom_hooks") or [])
    if out is not None:
        hooks.append(dict(type="mmseg_m2f.SavePredictions", out_dir=out))
    if show_dir is not None:
        hooks.append(dict(type="mmseg_m2f.DrawPredictions", out_dir=show_dir))
    cfg.custom_hooks = hooks
    metrics = _build_runner(cfg, launcher=launcher, loops=("test",)).test()
    if out is not None and is_main_process():
        _write_json(Path(out) / "metrics.json", metrics)
    return metrics


def drop_initial_weights(cfg: Config) -> None:
    """Let a model that a checkpoint is about to fill be built without fetching its backbone's initial weights."""
    for node in _nodes(cfg.model):
        node.pop("init_cfg", None)
        node.pop("checkpoint_path", None)
        if node.get("pretrained"):
            node["pretrained"] = False if node["pretrained"] is True else None


def find_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """The newest complete `iter_*.pth` or `epoch_*.pth` of a folder, None if there is none.

    A file that an interrupted run left incomplete is passed over with a warning.
    """
    numbered = [
        (int(match[1]), path)
        for path in Path(folder).glob("*.pth")
        if (match := re.fullmatch(r"(?:iter|epoch)_(\d+)", path.stem))
    ]
    for _, path in sorted(numbered, reverse=True):
        try:
            check_checkpoint(path)
        except ValueError as error:
            warnings.warn(f"--resume passes over it and takes an earlier one: {error}", stacklevel=2)
        else:
            return str(path)
    return None


def _build_runner(cfg: Config, *, launcher: Launcher, loops: Sequence[Loop]) -> Runner:
    """Everything that can be wrong without building anything is found here."""
    # mmengine retries a refused checkpoint without protection; this makes torch refuse again.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    compat.allow_safe_checkpoint_globals()
    check_config(cfg)
    check_data_paths(cfg, loops=loops)
    if cfg.get("load_from") and not is_remote(cfg.load_from):
        check_checkpoint(cfg.load_from)
    cfg.launcher = launcher
    if launcher != "none" and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    return Runner.from_cfg(cfg)


def _distribute_on_cpu(cfg: Config) -> None:
    """Start the process group before mmengine does, which would ask for a GPU."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    wrapper = cfg.get("model_wrapper_cfg") or dict(
        type="mmengine.MMDistributedDataParallel",
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
    cfg.pop("sync_bn", None)  # torch's synchronised batch norm refuses the CPU


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    name = str(wrapper.get("type", "OptimWrapper"))
    kind = name.rpartition(".")[2]
    if kind not in ("OptimWrapper", "AmpOptimWrapper", "Bfloat16OptimWrapper"):
        raise ValueError(
            f"--amp: optim_wrapper.type is '{name}'; expected 'mmengine.OptimWrapper', which it replaces. "
            "Leave --amp out and set mixed precision in the config."
        )
    if not torch.cuda.is_available():
        for key in ("dtype", "loss_scale", "use_fsdp"):  # of AmpOptimWrapper, which refuses to be built without a GPU
            wrapper.pop(key, None)
        wrapper.type = "mmseg_m2f.Bfloat16OptimWrapper"
    elif kind == "OptimWrapper":
        has_bfloat16 = torch.cuda.get_device_capability() >= _FIRST_WITH_BFLOAT16
        scaling = dict(dtype="bfloat16", loss_scale=dict(enabled=False)) if has_bfloat16 else dict(loss_scale="dynamic")
        wrapper.update(type="mmengine.AmpOptimWrapper", **scaling)


def _enable_lr_scaling(cfg: Config) -> None:
    if not (cfg.get("auto_scale_lr") or {}).get("base_batch_size"):
        raise ValueError(
            "--auto-scale-lr: the config has no auto_scale_lr.base_batch_size; expected the batch size that its "
            "learning rate was chosen for. Add auto_scale_lr = dict(base_batch_size=16), or leave the option out."
        )
    cfg.auto_scale_lr.enable = True


def _use_tta(cfg: Config) -> None:
    if "tta_pipeline" not in cfg:
        raise ValueError(
            f"--tta: config {cfg.filename} has no tta_pipeline; expected test transforms that end in "
            "mmengine.TestTimeAug. Add one to the dataset ingredient, or leave --tta out."
        )
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(cfg.get("tta_model") or dict(type="mmseg_m2f.SemanticTTA"), module=cfg.model)


def _replace_backbone(cfg: Config, name: str, *, beside: Path) -> None:
    """Put the `backbone` of an ingredient in the place of the model's."""
    file = Path(name) if name.endswith(".py") else _find_ingredient(name, beside=beside)
    if not file.is_file():
        raise FileNotFoundError(f"backbone={name}: expected an ingredient file, got none at {file.resolve()}.")
    backbone = Config.fromfile(file).get("backbone")
    if not isinstance(backbone, Mapping) or "type" not in backbone:
        raise ValueError(
            f"backbone={name}: {file} defines no backbone = dict(type=...). Choose a file of _base_/backbones."
        )
    if "backbone" not in cfg.get("model", {}):
        raise ValueError(
            f"backbone={name}: the config's model has no part 'backbone' to replace. Set the part of the model that "
            "is meant by its dotted key."
        )
    old, new = cfg.model.backbone or {}, ConfigDict(backbone)
    if "img_size" in old and old.get("type") == new.type:
        new.setdefault("img_size", old["img_size"])  # that of the crop, which stays
    cfg.model.backbone = new
    if "backbone" in cfg:
        cfg.backbone = ConfigDict(new)


def _find_ingredient(name: str, *, beside: Path) -> Path:
    folders = [parent / "_base_" / "backbones" for parent in beside.resolve().parents]
    known = {file.stem: file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.py"))}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)
    raise ValueError(
        f"backbone={name}: expected the name of a file in _base_/backbones or a path to one. "
        f"Nearest: {', '.join(near) or f'none, {beside} has no _base_/backbones above it'}."
    )


def _replace_data_root(cfg: Config, data_root: str) -> None:
    """Set `data_root` wherever the previous one stands, alone or at the beginning of a path."""
    nodes = [node for value in cfg.values() for node in _nodes(value)]
    previous = cfg.get("data_root") or next((node["data_root"] for node in nodes if node.get("data_root")), None)
    if previous is None:
        raise ValueError(
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
    accepted = [accepted_arguments(target) for target in found]
    dropped = [
        key
        for key in node
        if key != "type" and (key == "init_cfg" or not any(names is None or key in names for names in accepted))
    ]
    for key in dropped:
        del node[key]
    if dropped:
        kept = sorted(set(node) - {"type"})
        warnings.warn(
            f"{part}.type={name} drops the arguments of the former type: {', '.join(dropped)}; "
            f"it keeps {', '.join(kept) or 'none'}. Give others as {part}.NAME=VALUE.",
            stacklevel=3,
        )


def _nodes(node: object) -> Iterator[MutableMapping]:
    if isinstance(node, MutableMapping):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _nodes(value)


def _missing_config_message(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = {file.name: file for file in folder.rglob("*.py") if "_base_" not in file.parts}
    near = [str(names[name]) for name in difflib.get_close_matches(path.name, names, n=3, cutoff=0.4)]
    hint = f"Nearest: {', '.join(near)}." if near else f"No similar .py file lies below {folder.resolve()}."
    return f"Config {path}: expected an existing file (working directory {os.getcwd()}). {hint}"


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(content, indent=2, default=float) + "\n")
    unfinished.replace(path)
