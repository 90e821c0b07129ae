"""Changing how long a config trains, how often it validates, and how fast it learns."""

import warnings
from collections.abc import Mapping, MutableMapping

from mmengine.config import Config, ConfigDict

from mmseg_m2f.config.nodes import config_nodes, hold, is_a
from mmseg_m2f.config.type_lookup import default_argument, find_types
from mmseg_m2f.errors import InvalidValueError

_LENGTHS = ("begin", "end", "T_max", "step_size", "total_steps")  # of a schedule, in its own unit
_LONGEST_WARM_UP = 0.1  # of the run, where its share of the original run is not known
_WARM_UPS = ("head_iters", "backbone_iters")  # of TwoStageWarmup
_UNLIMITED = 10**9  # mmengine's `end` of a schedule that never ends


def set_max_iters(cfg: Config, max_iters: int) -> None:
    """Train for `max_iters` iterations; schedules, warm-up, validation and checkpoint intervals scale.

    A run that counts epochs counts iterations from then on.

    Raises:
        ValueError: Fewer than one iteration, or a config without training loop.
    """
    before, by_epoch = training_length(cfg, f"max_iters={max_iters}")
    if not isinstance(max_iters, int) or max_iters < 1:
        raise InvalidValueError(f"max_iters={max_iters}: expected at least 1 iteration.")
    if max_iters == before and not by_epoch:
        hold(cfg, "max_iters", max_iters)
        return
    ratio = max_iters / before
    scale_schedules(cfg, max_iters)
    loop = dict(cfg.train_cfg)
    kept = {key: value for key, value in loop.items() if key not in ("by_epoch", "max_epochs", "val_begin")}
    kept["max_iters"] = max_iters
    if by_epoch or "type" not in kept:
        kept["type"] = "mmengine.IterBasedTrainLoop"
    kept["val_interval"] = _share(loop.get("val_interval", 1 if by_epoch else 1000), ratio)
    if loop.get("val_begin", 1) > 1:
        kept["val_begin"] = _share(loop["val_begin"], ratio)
    if loop.get("dynamic_intervals"):
        kept["dynamic_intervals"] = [
            (_share(start, ratio), _share(interval, ratio)) for start, interval in loop["dynamic_intervals"]
        ]
    cfg.train_cfg = ConfigDict(kept)
    _scale_checkpoints(cfg, ratio, by_epoch=by_epoch)
    hold(cfg, "max_iters", max_iters)


def set_val_interval(cfg: Config, val_interval: int) -> None:
    """Validate every so many iterations (or epochs, as the loop counts).

    Checkpoints follow where they were stored at each validation.

    Raises:
        ValueError: An interval below one, or a config without training loop.
    """
    training_length(cfg, f"val_interval={val_interval}")
    if not isinstance(val_interval, int) or val_interval < 1:
        raise InvalidValueError(f"val_interval={val_interval}: expected at least 1.")
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint")
    if checkpoint and checkpoint.get("interval") == cfg.train_cfg.get("val_interval"):
        checkpoint["interval"] = val_interval
    cfg.train_cfg.val_interval = val_interval
    cfg.train_cfg.pop("dynamic_intervals", None)
    hold(cfg, "val_interval", val_interval)


def set_lr(cfg: Config, lr: int | float) -> None:
    """Set the optimizer's learning rate; the rates at which schedules end (`eta_min`) scale with it.

    Raises:
        ValueError: A rate that is not positive, or a config with several optimizers or none.
    """
    optimizer = (cfg.get("optim_wrapper") or {}).get("optimizer")
    if not isinstance(optimizer, MutableMapping):
        raise InvalidValueError(
            f"lr={lr}: expected one optimizer at optim_wrapper.optimizer, got {optimizer}. Set the rate of each "
            "optimizer by its dotted key."
        )
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or lr <= 0:
        raise InvalidValueError(f"lr={lr}: expected a positive learning rate.")
    before = optimizer.get("lr")
    for schedule in _listed_schedules(cfg) if before else ():
        if schedule.get("eta_min"):
            schedule["eta_min"] = schedule["eta_min"] * lr / before
    optimizer["lr"] = lr
    hold(cfg, "lr", lr)


def training_length(cfg: Config, option: str) -> tuple[int, bool]:
    """How long a config trains, and whether it counts epochs.

    Raises:
        ValueError: It has no training loop of a known length; the message starts with `option`.
    """
    loop = cfg.get("train_cfg") or {}
    for key in ("max_iters", "max_epochs"):
        if loop.get(key):
            return int(loop[key]), key == "max_epochs"
    raise InvalidValueError(
        f"{option}: expected max_iters or max_epochs in train_cfg, got {dict(loop)}. Add max_iters."
    )


def scale_schedules(cfg: Config, max_iters: int, *, before: int | None = None) -> None:
    """Compress or stretch schedules and the two-stage warm-up to `max_iters` iterations.

    Args:
        before: Iterations that the schedules were made for; those (or the epochs) of `train_cfg` if not given.
    """
    if before is None:
        before, by_epoch = training_length(cfg, f"max_iters={max_iters}")
    else:
        by_epoch = False
    length = dict(epochs=before if by_epoch else None, iterations=None if by_epoch else before)
    given = cfg.get("param_scheduler")
    if isinstance(given, Mapping) and "type" not in given:  # of several optimizers, by name
        cfg.param_scheduler = {name: _all_scaled(listed, max_iters, **length) for name, listed in given.items()}
    elif given:
        cfg.param_scheduler = _all_scaled(given, max_iters, **length)
    hooks = cfg.get("custom_hooks")
    if any(is_a(hook, "TwoStageWarmup") for hook in hooks or ()):
        cfg.custom_hooks = [
            ConfigDict(_scaled_warm_up(hook, max_iters, iterations=length["iterations"]))
            if is_a(hook, "TwoStageWarmup")
            else hook
            for hook in hooks
        ]


def check_schedule(cfg: Config) -> None:
    """Check that the learning rate's schedules end when training ends.

    A constant rate after a warm-up passes: nothing is left to end.

    Raises:
        ValueError: They end before or after; the message says which option scales them.
    """
    loop = cfg.get("train_cfg") or {}
    by_epoch = not loop.get("max_iters")
    total = loop.get("max_epochs" if by_epoch else "max_iters")
    schedules = [item for item in _listed_schedules(cfg) if item.get("by_epoch", True) == by_epoch]
    ends = [int(item["end"]) for item in schedules if item.get("end") and item["end"] < _UNLIMITED]
    falling = [item for item in schedules if not _is_warm_up(item)]
    if not total or not ends:
        return
    unlimited = len(ends) < len(schedules)
    if max(ends) > total or (falling and not unlimited and max(ends) < total):
        unit = "epochs" if by_epoch else "iterations"
        side = "after" if max(ends) > total else "before"
        raise InvalidValueError(
            f"param_scheduler ends after {max(ends)} {unit}, {side} training, which takes {total} {unit} "
            f"(train_cfg.{'max_epochs' if by_epoch else 'max_iters'}): the learning rate would not follow its curve. "
            f"Set max_iters=N (on the command line, or at the top of the config) instead: it sets the length and "
            "scales schedules and intervals. Or set `end` of the schedules."
        )


def last_end(cfg: Config) -> int | None:
    """The iteration at which the last schedule ends; None where none has an end in iterations."""
    ends = [int(s["end"]) for s in _listed_schedules(cfg) if not s.get("by_epoch", True) and s.get("end")]
    return max((end for end in ends if end < _UNLIMITED), default=None)


def scale_to_loop(cfg: Config, before: int | None, *, source: str) -> None:
    """Scale schedules made for `before` iterations to `train_cfg.max_iters`, and say so."""
    max_iters = cfg.train_cfg.get("max_iters")
    if before is None or max_iters is None or max_iters == before:
        return
    scale_schedules(cfg, max_iters, before=before)
    hold(cfg, "max_iters", max_iters)
    warnings.warn(
        f"{source} train_cfg.max_iters={max_iters} also scales the schedules of the learning rate, from {before} "
        f"iterations. max_iters={max_iters} scales the intervals of validation and checkpoints as well.",
        stacklevel=2,
    )


def _listed_schedules(cfg: Config) -> list[MutableMapping]:
    """The config's schedules, also those of several optimizers."""
    return [node for node in config_nodes(cfg.get("param_scheduler")) if "type" in node]


def _is_warm_up(schedule: Mapping) -> bool:
    return schedule.get("begin", 0) == 0 and str(schedule.get("type")).rpartition(".")[2] in (
        *("LinearLR", "LinearParamScheduler", "LinearMomentum"),
        *("ConstantLR", "QuadraticWarmupLR", "QuadraticWarmupMomentum"),
    )


def _share(value: int, ratio: float) -> int:
    return max(round(value * ratio), 1)


def _scale_checkpoints(cfg: Config, ratio: float, *, by_epoch: bool) -> None:
    hooks = cfg.get("default_hooks") or {}
    checkpoint, logger = hooks.get("checkpoint"), hooks.get("logger")
    if checkpoint and checkpoint.get("interval", -1) > 0:
        counts_epochs = checkpoint.get("by_epoch", True)
        if counts_epochs == by_epoch:
            checkpoint["interval"] = _share(checkpoint["interval"], ratio)
            checkpoint["by_epoch"] = False
    if by_epoch:
        if logger:
            logger["log_metric_by_epoch"] = False
        cfg.log_processor = dict(cfg.get("log_processor") or {}, by_epoch=False)


def _scaled_warm_up(hook: Mapping, length: int, *, iterations: int | None) -> dict[str, object]:
    """The two-stage warm-up of a run of `iterations`, over `length`; each stage keeps an iteration.

    Args:
        iterations: None for a run that counts epochs, whose warm-up then takes no more than its share of the run.
    """
    (warm_up,) = find_types("mmseg_m2f.TwoStageWarmup", scope="mmengine")
    stages = {name: hook.get(name, default_argument(warm_up, name)) for name in _WARM_UPS}
    if iterations is None:
        ratio = min(_LONGEST_WARM_UP * length / sum(stages.values()), 1.0)
    else:
        ratio = length / iterations
    return dict(hook, **{name: max(round(value * ratio), 1) for name, value in stages.items()})


def _all_scaled(schedules: object, length: int, *, epochs: int | None, iterations: int | None) -> list[ConfigDict]:
    listed = [schedules] if isinstance(schedules, Mapping) else list(schedules or ())  # type: ignore[call-overload]
    scaled = [_scaled(schedule, length, epochs=epochs, iterations=iterations) for schedule in listed]
    return [ConfigDict(schedule) for schedule in scaled if schedule is not None]


def _scaled(
    schedule: Mapping[str, object], length: int, *, epochs: int | None, iterations: int | None
) -> dict[str, object] | None:
    """The schedule over `length` iterations instead of the run's epochs or iterations; None where nothing is left."""
    new = dict(schedule, by_epoch=False)
    new.pop("convert_to_iter_based", None)
    total = epochs if schedule.get("by_epoch", True) else iterations
    if total is None:  # in the other unit: the warm-up of a run that counts epochs
        longest = max((int(schedule[key]) for key in _LENGTHS if schedule.get(key)), default=1)  # type: ignore[call-overload]
        ratio = min(_LONGEST_WARM_UP * length / longest, 1.0)
    else:
        ratio = length / total
    for key in _LENGTHS:
        if schedule.get(key) is not None:
            new[key] = round(float(schedule[key]) * ratio)  # type: ignore[arg-type]
    if "milestones" in schedule:
        new["milestones"] = [round(step * ratio) for step in schedule["milestones"]]  # type: ignore[attr-defined]
    empty = new.get("end") is not None and new["end"] <= new.get("begin", 0)  # type: ignore[operator]
    return None if empty else new
