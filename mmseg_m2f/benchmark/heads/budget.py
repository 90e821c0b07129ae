"""One budget for configs of any origin: data, initial weights, crop, iterations, seed."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmengine.config import Config, ConfigDict

from mmseg_m2f.config.crops import set_crop_size
from mmseg_m2f.config.initial_weights import set_pretrained
from mmseg_m2f.config.nodes import is_a
from mmseg_m2f.config.options import apply_options
from mmseg_m2f.config.schedules import set_max_iters
from mmseg_m2f.config.swap_data import replace_data
from mmseg_m2f.errors import InvalidValueError

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
        replace_data(cfg, budget.data, beside=cfg.filename)
    apply_options(cfg, budget.options)
    if budget.from_scratch:
        set_pretrained(cfg, False)
    if budget.crop is not None:
        set_crop_size(cfg, budget.crop)
    cfg.custom_hooks = _without_epoch_hooks(cfg.get("custom_hooks") or [])
    set_max_iters(cfg, budget.iterations)
    _set_intervals(cfg, budget)
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)


def _set_intervals(cfg: Config, budget: Budget) -> None:
    """Validate, log and keep checkpoints in the same way in all runs, whatever the configs do."""
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
