"""A learning rate that starts with what is new and wakes the pretrained backbone later (EoMT, arXiv 2503.19108)."""

from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class TwoStageWarmup(Hook):
    """Warms up everything but the backbone, then the backbone, linearly from 0; then each falls to 0 at the end.

    It stands for the run's `param_scheduler`, which cannot treat parameters differently. `ParameterRule` with
    `layer_decay` keeps the backbone's parameters in groups of their own. Everything follows from the iteration and the
    groups' initial rates, so a resumed run goes on where it was.

    Args:
        head_iters: iterations in which all but the backbone warms up; the backbone stands still.
        backbone_iters: iterations after these in which the backbone warms up.
        power: of the polynomial fall.
    """

    priority = "HIGHEST"  # before the learning rate is logged

    def __init__(self, *, head_iters: int = 500, backbone_iters: int = 1000, power: float = 0.9) -> None:
        self.head_iters, self.backbone_iters, self.power = head_iters, backbone_iters, power

    def before_train(self, runner: Runner) -> None:
        """Notes the initial rates; resumed groups have theirs."""
        groups = runner.optim_wrapper.param_groups
        if runner.param_schedulers:
            raise InvalidValueError("TwoStageWarmup: it sets the learning rate alone. Set param_scheduler=None.")
        if not any(group.get("in_backbone") for group in groups):
            raise InvalidValueError(
                "TwoStageWarmup: expected groups of parameters marked as the backbone's, got none. Set "
                "optim_wrapper.constructor='mmseg_m2f.ParameterRule' and paramwise_cfg=dict(layer_decay=...)."
            )
        for group in groups:
            group.setdefault("initial_lr", group["lr"])

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Mapping | None = None) -> None:
        """Sets the rates of this iteration."""
        for group in runner.optim_wrapper.param_groups:
            factor = self.factor(runner.iter, runner.max_iters, in_backbone=group.get("in_backbone", False))
            group["lr"] = group["initial_lr"] * factor

    def factor(self, iteration: int, max_iters: int, *, in_backbone: bool) -> float:
        """What the initial learning rate is multiplied by, in [0, 1]."""
        start, length = (self.head_iters, self.backbone_iters) if in_backbone else (0, self.head_iters)
        if iteration < start + length:
            return max(iteration - start, 0) / length
        return (1 - (iteration - start - length) / max(max_iters - start - length, 1)) ** self.power
