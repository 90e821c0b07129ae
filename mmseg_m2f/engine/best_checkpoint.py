"""`save_best` names a metric that the validation gives: checked before the run, and borne with while it is absent."""

import difflib
import warnings
from collections.abc import Iterator, MutableMapping

from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.evaluation import MaskAP, ObjectMatching, PanopticQuality, SemanticIoU

_METRICS = (SemanticIoU, PanopticQuality, MaskAP, ObjectMatching)


def complete_best_rules(cfg: Config) -> None:
    """Say in the config that more is better for the figures of our metrics; mmengine guesses it from parts of names.

    It finds no rule for `PQ`, and "loss" in `IoU.glossy`.

    Raises:
        ValueError: `save_best` names a figure of another package, and neither `rule` nor mmengine tells what is better.
    """
    hooks = [("default_hooks.checkpoint", (cfg.get("default_hooks") or {}).get("checkpoint"))]
    hooks += [(f"custom_hooks[{index}]", hook) for index, hook in enumerate(cfg.get("custom_hooks") or [])]
    for path, hook in hooks:
        if not isinstance(hook, MutableMapping) or not hook.get("save_best") or hook.get("rule") is not None:
            continue
        watched = hook["save_best"]
        names = {name: hook[name] for name in ("greater_keys", "less_keys") if name in hook}
        keys = [watched] if isinstance(watched, str) else list(watched)
        try:
            rules = ["greater" if _is_ours(key) else CheckpointHook(save_best=key, **names).rules[0] for key in keys]
        except ValueError as error:
            raise InvalidValueError(
                f"{path}.save_best is {watched!r}, whose name does not tell whether more of it is better; expected a "
                f"rule beside it. Set {path}.rule to 'greater' or 'less'."
            ) from error
        if watched != "auto":
            hook["rule"] = rules[0] if isinstance(watched, str) else rules


def _is_ours(key: str) -> bool:
    """Whether a key is spelled like a figure of one of our metrics, or of one of its classes."""
    name = key.rpartition("/")[2].removeprefix("boundary_")
    return any(name in metric.figures or name.startswith(f"{metric.class_figure}.") for metric in _METRICS)


def check_save_best(runner: Runner) -> None:
    """Raise ValueError where `save_best` names a figure that none of the validation's metrics gives.

    Metrics of other packages may give any figure; then nothing is checked.
    """
    if runner.val_loop is None:
        return
    metrics = runner.val_evaluator.metrics
    if any(type(metric) not in _METRICS for metric in metrics):
        return
    figures, stems = [], []
    for metric in metrics:
        prefix = (f"{metric.prefix}/" if metric.prefix else "") + (
            "boundary_" if getattr(metric, "boundary", 0) else ""
        )
        figures += [
            prefix + name for name in metric.figures if not prefix.endswith("boundary_") or not name.endswith("Acc")
        ]
        stems.append(prefix + metric.class_figure)
    for key in _watched(runner):
        of_class = any(key.startswith(stem) and key[len(stem) : len(stem) + 1] in (".", "/") for stem in stems)
        if key not in figures and not of_class:
            near = difflib.get_close_matches(key, figures, n=3, cutoff=0.4) or figures[:3]
            raise InvalidValueError(
                f"default_hooks.checkpoint.save_best is '{key}', but val_evaluator ("
                f"{', '.join(type(metric).__name__ for metric in metrics)}) gives no such figure; expected one of "
                f"{', '.join(figures)}, or one of a class. Nearest: {', '.join(near)}. Set save_best, or "
                "add the metric."
            )


class SkipAbsentBest(Hook):
    """Warns where a validation lacks the figure of `save_best`, and lets the checkpoint hook see it as "not better".

    mmengine ends the run with a `KeyError`. A figure can be absent for the moment: AP of large objects, where the
    validation set has none.
    """

    priority = "LOW"  # after the figures are logged, before `CheckpointHook`

    def __init__(self) -> None:
        self._said: set[str] = set()

    def after_val_epoch(self, runner: Runner, metrics: MutableMapping | None = None) -> None:
        """Fills the gaps with None, which `CheckpointHook` passes over."""
        if metrics is None:
            return
        for key in _watched(runner):
            if key not in metrics:
                metrics[key] = None
                if key not in self._said:
                    self._said.add(key)
                    warnings.warn(
                        f"default_hooks.checkpoint.save_best: this validation gives no '{key}' (expected one of "
                        f"{', '.join(sorted(metrics)[:8])} …), so that no best checkpoint is kept. Where no object of "
                        "that kind is in the validation set, set another figure.",
                        stacklevel=2,
                    )


def _watched(runner: Runner) -> Iterator[str]:
    """The figures that checkpoint hooks look at."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            yield from (key for key in hook.key_indicators if key != "auto")
