"""Options for training that starts from good weights: lower rates for early layers, an average of the weights."""

from collections.abc import Mapping

from mmengine.config import Config, ConfigDict

from mmseg_m2f.config.nodes import short_type
from mmseg_m2f.errors import InvalidValueError

_USUAL_DECAY = 0.9998  # of an average over about 5000 iterations; mmengine's default
_ANNEALING = 100  # iteration t moves the average by at least 100 / (100 + t): short trainings forget the start, too


def set_layer_decay(cfg: Config, decay: int | float | str | None) -> None:
    """Multiply the learning rate of each block of a vision transformer by `decay` for each block behind it.

    Args:
        decay: In (0, 1]; None for one rate in all blocks. See `engine.ParameterRule`.

    Raises:
        ValueError: Another number, or an optimizer that `ParameterRule` does not build.
    """
    wrapper = cfg.get("optim_wrapper") or {}
    if decay is not None and (isinstance(decay, (bool, str)) or not 0 < decay <= 1):
        raise InvalidValueError(f"layer_decay={decay}: expected a factor above 0, at most 1, such as 0.75.")
    constructor = str(wrapper.get("constructor", "mmengine.DefaultOptimWrapperConstructor"))
    if constructor.rpartition(".")[2] != "ParameterRule":
        raise InvalidValueError(
            f"layer_decay={decay}: expected optim_wrapper.constructor='mmseg_m2f.ParameterRule', which knows it, got "
            f"'{constructor}'. Take a schedule with that rule, such as adamw_160k.py, or leave layer_decay out."
        )
    rule = ConfigDict(wrapper.get("paramwise_cfg") or {})
    rule.pop("layer_decay", None)
    cfg.optim_wrapper.paramwise_cfg = ConfigDict(rule, **({} if decay is None else dict(layer_decay=decay)))


def set_ema(cfg: Config, ema: bool | int | float | str | None) -> None:
    """Validate and store a moving average of the weights, `average ← d · average + (1 - d) · weights` per iteration.

    The share d of the average that stays rises as t / (100 + t) up to the given one.

    Args:
        ema: The largest d, in [0.5, 1); True or "on" for 0.9998; False, None or "off" for none.

    Raises:
        ValueError: Another number.
    """
    value = {"on": True, "off": False, "none": False}.get(str(ema).lower(), ema)
    hooks = [hook for hook in cfg.get("custom_hooks") or [] if not _is_average(hook)]
    if value is not False and value is not None:
        decay = _USUAL_DECAY if value is True else value
        if not isinstance(decay, (int, float)) or not 0.5 <= decay < 1:
            raise InvalidValueError(
                f"ema={ema}: expected the share of the average that an iteration keeps, from 0.5 to below 1, such as "
                "0.999; on or off. mmengine's momentum is one minus this share."
            )
        average = dict(ema_type="mmengine.MomentumAnnealingEMA", momentum=round(1 - decay, 12), gamma=_ANNEALING)
        hooks.append(ConfigDict(type="mmengine.EMAHook", **average))
    cfg.custom_hooks = hooks


def ema_in_use(cfg: Config) -> object | None:
    """The momentum of the moving average of the weights; None without one."""
    hooks = [hook for hook in cfg.get("custom_hooks") or [] if _is_average(hook)]
    return hooks[0].get("momentum", True) if hooks else None


def _is_average(hook: object) -> bool:
    return isinstance(hook, Mapping) and short_type(hook) == "EMAHook"
