"""Training and testing as the command line does it: config, options, checks, and then mmengine's Runner."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_m2f import compat, processors
from mmseg_m2f.checkpoints.checking import check_checkpoint, non_finite_names
from mmseg_m2f.checkpoints.published import is_published, published_url, read_published
from mmseg_m2f.checkpoints.whole_models import is_whole_model_address
from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.data_paths import Loop, check_data_paths
from mmseg_m2f.config.initial_weights import check_initial_weights, drop_initial_weights, drop_replaced_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.config.nodes import short_type
from mmseg_m2f.config.operators import check_operators
from mmseg_m2f.config.options import Options
from mmseg_m2f.config.schedules import check_schedule
from mmseg_m2f.config.test_time_augmentation import use_views
from mmseg_m2f.config.trackers import check_trackers
from mmseg_m2f.engine.class_agreement import NamedClasses
from mmseg_m2f.engine.hooks.preflight import Preflight, unwrap_model
from mmseg_m2f.engine.learning_rate import count_accumulation
from mmseg_m2f.engine.run_checks import check_run
from mmseg_m2f.engine.runners import SafeRunner
from mmseg_m2f.engine.strategies import resolve_strategy, sharding_of, zero_of
from mmseg_m2f.engine.workers import named_faults
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.files import is_remote, locked, remove_unfinished, save_json
from mmseg_m2f.models.exported_network import use_exported
from mmseg_m2f.runtime import ExportedModel, is_exported

Launcher = Literal["none", "pytorch", "slurm", "mpi"]

_FIRST_WITH_BFLOAT16 = (8, 0)  # compute capability; older GPUs at best emulate it


def train(
    config: str | os.PathLike[str],
    options: Options | None = None,
    *,
    work_dir: str | None = None,
    resume: bool | str = False,
    amp: bool = False,
    auto_scale_lr: bool = False,
    launcher: Launcher = "none",
    hooks: Sequence[Hook] = (),
) -> Runner:
    """Train what a config describes and give the Runner, trained.

    Args:
        options: See `load_config`.
        resume: True continues from the newest complete checkpoint in the work folder, or starts where there is
            none; a path continues from that checkpoint. False leaves it to the config's `resume`, which may be True
            (with `load_from`: from that file) or a path.
        amp: Mixed precision: bfloat16 on the CPU and on GPUs that have it, else float16 with dynamic loss scaling. A
            config of mmengine's `AmpOptimWrapper` trains in bfloat16 on the CPU in any case, which a warning says.
        auto_scale_lr: Scale the learning rate from the config's `auto_scale_lr.base_batch_size` to the actual one:
            that of all ranks and of `optim_wrapper.accumulative_counts`.
        hooks: Besides those of the config.

    Raises:
        ValueError, KeyError, TypeError, FileNotFoundError: The checks before the run found a fault.
    """
    cfg = load_config(config, options, work_dir=work_dir)
    if amp or _refuses_the_cpu(cfg.optim_wrapper):
        _use_amp(cfg)
    if auto_scale_lr:
        _enable_lr_scaling(cfg)
    with _sole_training(cfg.work_dir, launcher):
        checkpoint = _resumed_checkpoint(cfg, resume)
        drop_replaced_weights(cfg, resumes=checkpoint is not None)
        cfg.resume = checkpoint is not None
        cfg.load_from = checkpoint or cfg.get("load_from")
        runner = build_runner(cfg, launcher=launcher, loops=("train", "val"))
        for hook in hooks:
            runner.register_hook(hook)
        with named_faults():
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
    hooks: Sequence[Hook] = (),
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set and give the metrics.

    Args:
        checkpoint: A `.pth` file, or an exported file (`tools/export.py`) that computes the network.
        options: See `load_config`.
        out: Folder for `metrics.json` and the predictions: `labels/`, `panoptic/` with `panoptic.json`,
            `instances.json`.
        show_dir: Folder for one picture per image: input, truth, prediction.
        tta: Average over the views of the config's `tta_pipeline`, or over an image and its mirror image where a
            `MaskDetector` has none. The metrics without it are logged beside them, and are in `metrics.json` under
            `without_tta`.
        hooks: Besides those of the config.

    Raises:
        ValueError, KeyError, TypeError, FileNotFoundError: The checks before the run found a fault.
    """
    cfg = load_config(config, options, work_dir=work_dir)
    cfg.load_from, cfg.resume = None if is_exported(checkpoint) else checkpoint, False
    drop_initial_weights(cfg.model)
    if tta:
        use_views(cfg)
    writers = (("mmseg_m2f.SavePredictions", out), ("mmseg_m2f.DrawPredictions", show_dir))
    writing = [dict(type=name, out_dir=folder) for name, folder in writers if folder is not None]
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), *writing]
    runner = build_runner(cfg, launcher=launcher, loops=("test",))
    for hook in hooks:
        runner.register_hook(hook)
    if is_exported(checkpoint):
        _use_exported(runner, checkpoint)
    with named_faults():
        metrics = runner.test()
    compared: dict[str, float | dict[str, float]] = {**metrics}
    if tta:
        plain = evaluate(config, checkpoint, options, work_dir=work_dir, launcher=launcher)
        compared["without_tta"] = plain
        for name in [name for name in plain if name in metrics and is_main_process()]:
            runner.logger.info(f"{name}: {plain[name]:.4f} without, {metrics[name]:.4f} with test-time augmentation")
    if out is not None and is_main_process():
        save_json(compared, Path(out) / "metrics.json", indent=2)
    return metrics


def find_checkpoint(folder: str | os.PathLike[str]) -> str | None:
    """The newest complete `iter_*.pth` or `epoch_*.pth` of a folder, None if there is none.

    A file that an interrupted run left incomplete, that was altered, or whose weights are not finite is passed over
    with a warning.

    Raises:
        ValueError: There are checkpoints, but none that can be used: training would start at 0 in their place.
    """
    numbered = [
        (int(match[1]), path)
        for path in Path(folder).glob("*.pth")
        if (match := re.fullmatch(r"(?:iter|epoch)_(\d+)", path.stem))
    ]
    reasons = []
    for _, path in sorted(numbered, reverse=True):
        try:
            content = check_checkpoint(path)
        except ValueError as error:
            reasons.append(str(error))
        else:
            weights = cast(Mapping[str, object], content.get("state_dict", content))
            names = non_finite_names(weights)
            if not names:
                for reason in reasons:
                    warnings.warn(f"--resume passes over it and takes an earlier one: {reason}", stacklevel=2)
                return str(path)
            reasons.append(f"Checkpoint {path} holds NaN or infinite numbers ({', '.join(names[:3])}).")
    if reasons:
        listed = "\n  ".join(reasons)
        raise InvalidValueError(
            f"--resume: {folder} has {len(reasons)} checkpoints; expected one that can be used, got none:\n  {listed}\n"
            "Put a good one there, give it as --resume CHECKPOINT, or start anew: move these away."
        )
    return None


def build_runner(cfg: Config, *, launcher: Launcher = "none", loops: Sequence[Loop] = ("train", "val")) -> Runner:
    """The Runner of a config, with the hooks that the launcher installs, after all checks that need nothing built.

    `preflight = False` and `report = False` in a config leave the hooks `Preflight` and `Report` out.

    Args:
        cfg: Changed in place: the hooks are added, and what the launcher needs.
        loops: Those that are about to run; only their data are checked.

    Raises:
        ValueError, KeyError, TypeError, FileNotFoundError: The checks found a fault.
    """
    # mmengine retries a refused checkpoint without protection; this makes torch refuse again.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    compat.allow_safe_checkpoint_globals()
    compat.keep_config_layouts()
    resolve_strategy(cfg, launcher=launcher, training="train" in loops)
    _install_hooks(cfg, training="train" in loops)
    if "train" in loops and launcher != "none":
        _log_means(cfg)
    check_config(cfg)
    check_operators(cfg)
    check_trackers(cfg)
    check_run(cfg, loops=loops)
    check_data_paths(cfg, loops=loops)
    if is_published(cfg.get("load_from")):
        read_published(cfg.load_from)
        cfg.load_from = published_url(cfg.load_from)
    if cfg.get("load_from") and not is_remote(cfg.load_from):
        check_checkpoint(cfg.load_from)
    if "train" in loops:
        check_schedule(cfg)
        check_initial_weights(cfg)
    cfg.launcher = launcher
    if launcher != "none" and not torch.cuda.is_available():
        _distribute_on_cpu(cfg)
    runner = SafeRunner.from_cfg(cfg)
    if processors.decision:
        runner.logger.info(processors.decision)
    if "train" in loops:
        count_accumulation(runner)
    return runner


def _use_exported(runner: Runner, path: str) -> None:
    """Let an exported file compute the network, and the test set be read in the order of its classes."""
    file = ExportedModel(path)
    use_exported(unwrap_model(runner.model), file)
    for hook in runner.hooks:
        if isinstance(hook, Preflight):
            hook.expect_classes(NamedClasses(file.record.classes, f"exported file {path}"))


def _install_hooks(cfg: Config, *, training: bool) -> None:
    """Add the checks before the first batch and, for training, the report and what resuming and checkpoints need.

    What the config has already stays as it is.
    """
    hooks = list(cfg.get("custom_hooks") or [])
    if training:
        _make_checkpoints_safe(cfg, hooks)
    for option, name, wanted in (("preflight", "Preflight", True), ("report", "Report", training)):
        switch = cfg.get(option, True)
        if not isinstance(switch, bool):
            raise InvalidValueError(f"{option}={switch}: expected True or False. Arguments go into custom_hooks.")
        listed = any(isinstance(hook, Mapping) and short_type(hook) == name for hook in hooks)
        if listed and not switch:
            hooks = [hook for hook in hooks if not (isinstance(hook, Mapping) and short_type(hook) == name)]
        elif wanted and switch and not listed:
            hooks.append(dict(type=f"mmseg_m2f.{name}"))
    added = ["NonFiniteGuard", "ExactResume"] if training else []
    if sharding_of(cfg) is not None:
        added.append("GatherForEvaluation")
    if training and is_whole_model_address(cfg.get("load_from")):
        added.append("FineTune")
    for name in added:
        if not any(isinstance(hook, Mapping) and short_type(hook) == name for hook in hooks):
            hooks.append(dict(type=f"mmseg_m2f.{name}"))
    cfg.custom_hooks = hooks


def _make_checkpoints_safe(cfg: Config, hooks: Sequence[object]) -> None:
    """Put `SafeCheckpointHook` in the place of mmengine's, with its arguments."""
    default = dict(cfg.get("default_hooks") or {})
    default.setdefault("checkpoint", dict(type="mmengine.CheckpointHook", interval=1))  # as mmengine itself does
    for hook in (default["checkpoint"], *hooks):
        if isinstance(hook, MutableMapping) and short_type(hook) == "CheckpointHook":
            hook["type"] = "mmseg_m2f.SafeCheckpointHook"
    cfg.default_hooks = default


def _log_means(cfg: Config) -> None:
    """Put `DeferredRuntimeInfo` in the place of mmengine's hook, which logs the losses of the first process alone."""
    hook = cfg.default_hooks.setdefault("runtime_info", dict(type="mmengine.RuntimeInfoHook"))
    if isinstance(hook, MutableMapping) and short_type(hook) == "RuntimeInfoHook":
        hook["type"] = "mmseg_m2f.DeferredRuntimeInfo"


def _resumed_checkpoint(cfg: Config, resume: bool | str) -> str | None:
    """The checkpoint to resume from: the argument's, else that of the config's `resume` and `load_from`."""
    given = cfg.get("resume") or False
    if not isinstance(given, (bool, str)):
        raise InvalidValueError(f"resume={given!r}: expected True, False or the path of a checkpoint.")
    if resume is False and given is True and cfg.get("load_from"):
        return str(cfg.load_from)  # mmengine's way to name the checkpoint
    wanted = resume or given
    return find_checkpoint(cfg.work_dir) if wanted is True else (wanted or None)


@contextmanager
def _sole_training(work_dir: str, launcher: Launcher) -> Iterator[None]:
    """Refuse a folder that another training writes to, and delete what killed ones left unfinished there."""
    variables = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    rank = next((os.environ[name] for name in variables if name in os.environ), "0")
    if launcher != "none" and rank != "0":
        yield
        return
    with locked(Path(work_dir) / "train.lock", remedy="give another --work-dir"):
        remove_unfinished(work_dir)
        yield


def _distribute_on_cpu(cfg: Config) -> None:
    """Start the process group before mmengine does, which would ask for a GPU."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    if cfg.get("sync_bn") == "torch":
        cfg.pop("sync_bn")
        warnings.warn(
            "sync_bn='torch': expected GPUs, got the CPU, which torch's synchronised batch norm refuses. Each process "
            "normalises with the statistics of its own images. Set sync_bn='mmcv' to share them on the CPU as well.",
            stacklevel=3,
        )
    if sharding_of(cfg) is not None or zero_of(cfg) is not None:
        return
    wrapper = cfg.get("model_wrapper_cfg") or dict(
        type="mmengine.MMDistributedDataParallel",
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)


def _refuses_the_cpu(wrapper: Mapping[str, object]) -> bool:
    """Whether a config asks for mmengine's mixed precision, which cannot be built here."""
    if str(wrapper.get("type", "")).rpartition(".")[2] != "AmpOptimWrapper" or get_device() != "cpu":
        return False
    warnings.warn(
        "optim_wrapper.type: expected a GPU for mmengine's AmpOptimWrapper, got the CPU. Products are computed in "
        "bfloat16 without loss scaling, as by --amp. Set optim_wrapper.type=mmengine.OptimWrapper for float32.",
        stacklevel=3,
    )
    return True


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    name = str(wrapper.get("type", "OptimWrapper"))
    kind = name.rpartition(".")[2]
    if kind not in ("OptimWrapper", "AmpOptimWrapper", "Bfloat16OptimWrapper"):
        raise InvalidValueError(
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
        raise InvalidValueError(
            "--auto-scale-lr: the config has no auto_scale_lr.base_batch_size; expected the batch size that its "
            "learning rate was chosen for. Add auto_scale_lr = dict(base_batch_size=16), or leave the option out."
        )
    cfg.auto_scale_lr.enable = True
