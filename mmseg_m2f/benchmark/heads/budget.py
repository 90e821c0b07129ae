"""One budget for configs of any origin: data, initial weights, crop, iterations, seed."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmengine.config import Config, ConfigDict

from mmseg_m2f.benchmark.heads.data import LOADERS, is_a, replace_data
from mmseg_m2f.config.options import apply_options, config_nodes, drop_initial_weights
from mmseg_m2f.config.type_lookup import default_argument
from mmseg_m2f.engine.hooks import TwoStageWarmup
from mmseg_m2f.errors import InvalidValueError

_LENGTHS = ("begin", "end", "T_max", "step_size", "total_steps")  # of a schedule, in its own unit
_LONGEST_WARM_UP = 0.1  # of the budget, where its share of the original run is not known
_WARM_UPS = ("head_iters", "backbone_iters")  # of TwoStageWarmup
_EPOCH_HOOKS = ("YOLOXModeSwitchHook", "PipelineSwitchHook")  # change the data in an epoch that a budget never reaches


@dataclass(frozen=True)
class Budget:
    """What all runs have in common.

    Args:
        iterations: of training; schedules are compressed or stretched to them.
        crop: height and width of what is trained on, also the size of generated scenes; None leaves them.
        data: an ingredient of `configs/_base_/datasets`, or a path to one, that takes the place of the configs' data.
        from_scratch: no initial weights, so nothing is downloaded.
        validations: spread evenly over training; a checkpoint is kept at each.
        options: of the command line, set in each config after its data; see `apply_options`.
    """

    iterations: int
    crop: tuple[int, int] | None = None
    data: str | None = None
    from_scratch: bool = False
    validations: int = 8
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("iterations", "validations"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.crop is not None and min(self.crop) < 1:
            raise InvalidValueError(f"crop: expected height and width in pixels, got {self.crop}.")

    @property
    def interval(self) -> int:
        """Iterations between validations."""
        return -(-self.iterations // self.validations)


def apply_budget(cfg: Config, budget: Budget, *, seed: int) -> None:
    """Change a config so that it trains under the budget, validates, and reports.

    Raises:
        FileNotFoundError, ValueError: the budget's data or crop do not fit the config.
    """
    if budget.data is not None:
        replace_data(cfg, budget.data)
    apply_options(cfg, budget.options)
    if budget.from_scratch:
        drop_initial_weights(cfg.model)
    if budget.crop is not None:
        _set_crop(cfg, budget.crop)
    cfg.custom_hooks = _without_epoch_hooks(cfg.get("custom_hooks") or [])
    _set_iterations(cfg, budget)
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)
    if not any(hook["type"] == "mmseg_m2f.Report" for hook in cfg.custom_hooks):
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type="mmseg_m2f.Report")]


def _set_crop(cfg: Config, crop: tuple[int, int]) -> None:
    """Random crops of training, and generated scenes of any loop; batches are padded to the same size."""
    places = [(node, "crop_size") for node in config_nodes(cfg.train_dataloader) if is_a(node, "RandomCrop")]
    places += [(node, "image_size") for key in LOADERS for node in config_nodes(cfg.get(key)) if "image_size" in node]
    if not places:
        raise InvalidValueError(
            f"--crop {crop[0]} {crop[1]}: expected a RandomCrop or generated scenes in train_dataloader, got neither. "
            "Leave the option out, or set the size of the images with --cfg-options."
        )
    preprocessor = cfg.model.get("data_preprocessor") or {}
    sized = [preprocessor, *(preprocessor.get("batch_augments") or [])]
    for node, key in [*places, *((node, "size") for node in sized if node.get("size"))]:
        node[key] = crop


def _set_iterations(cfg: Config, budget: Budget) -> None:
    before = cfg.train_cfg
    by_epoch = "max_epochs" in before
    length = before["max_epochs" if by_epoch else "max_iters"]
    schedules = cfg.get("param_scheduler") or []
    scaled = [
        _scaled(
            schedule, budget.iterations, epochs=length if by_epoch else None, iterations=None if by_epoch else length
        )
        for schedule in (schedules if isinstance(schedules, list) else [schedules])
    ]
    cfg.param_scheduler = [schedule for schedule in scaled if schedule is not None]
    cfg.custom_hooks = [
        _scaled_warm_up(hook, budget.iterations, iterations=None if by_epoch else length)
        if is_a(hook, "TwoStageWarmup")
        else hook
        for hook in cfg.get("custom_hooks") or []
    ]
    cfg.train_cfg = dict(type="mmengine.IterBasedTrainLoop", max_iters=budget.iterations, val_interval=budget.interval)
    hooks = ConfigDict(cfg.get("default_hooks") or {})
    hooks.logger = dict(type="mmengine.LoggerHook", interval=max(budget.iterations // 10, 1), log_metric_by_epoch=False)
    hooks.checkpoint = dict(
        type="mmengine.CheckpointHook",
        by_epoch=False,
        interval=budget.interval,
        max_keep_ckpts=2,
        backend_args=dict(backend="mmseg_m2f.atomic"),
    )
    cfg.default_hooks = hooks
    cfg.log_processor = dict(by_epoch=False)


def _without_epoch_hooks(hooks: Sequence[Mapping]) -> list[Mapping]:
    kept = []
    for hook in hooks:
        if not any(is_a(hook, name) for name in _EPOCH_HOOKS):
            kept.append(hook)
            continue
        warnings.warn(
            f"custom_hooks: {hook['type']} is left out. It changes the training data in the last epochs, of data that "
            "have such a change, and runs under a budget count iterations.",
            stacklevel=3,
        )
    return kept


def _scaled_warm_up(hook: Mapping, length: int, *, iterations: int | None) -> dict[str, object]:
    """The two-stage warm-up of a run of `iterations`, over `length`; each stage keeps an iteration.

    Args:
        iterations: None for a run that counts epochs, whose warm-up then takes no more than its share of the budget.
    """
    stages = {name: hook.get(name, default_argument(TwoStageWarmup, name)) for name in _WARM_UPS}
    if iterations is None:
        ratio = min(_LONGEST_WARM_UP * length / sum(stages.values()), 1.0)
    else:
        ratio = length / iterations
    return dict(hook, **{name: max(round(value * ratio), 1) for name, value in stages.items()})


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
