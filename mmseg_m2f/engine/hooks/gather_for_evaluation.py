"""Sharded models are whole while they are evaluated."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_m2f.engine.sharding import gather_parameters, is_sharded
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class GatherForEvaluation(Hook):
    """Gathers all parameters of a sharded model before validation and testing, and frees them afterwards.

    Processes then need not run the network equally often: images have different numbers of windows, and the last batch
    may be missing on some. The launcher installs the hook with `FSDPStrategy`.
    """

    priority = "VERY_HIGH"  # before hooks that write checkpoints after validation

    def before_val_epoch(self, runner: Runner) -> None:
        """Gathers."""
        self._gather(runner, stay=True)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Frees."""
        self._gather(runner, stay=False)

    def before_test_epoch(self, runner: Runner) -> None:
        """Gathers."""
        self._gather(runner, stay=True)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Frees."""
        self._gather(runner, stay=False)

    def _gather(self, runner: Runner, *, stay: bool) -> None:
        if is_sharded(runner.model):
            gather_parameters(runner.model, stay=stay)
