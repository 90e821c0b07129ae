"""Losses in the log without waiting for the device in every iteration."""

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from mmseg_m2f.registry import HOOKS

_GRAD_NORM = "grad_norm"


@HOOKS.register_module()
class DeferredRuntimeInfo(RuntimeInfoHook):
    """mmengine's hook of the same name that copies losses to the host only when they are about to be logged.

    The usual one reads each of Mask2Former's 31 losses in each iteration, and the optimizer's wrapper the norm of the
    gradients: 32 times the host waits for the device. Here they stay on it and travel in one copy per logging interval.
    With several processes the log shows the mean over them, not the first one's. Take the hook as
    `default_hooks.runtime_info`; the launcher does so for several processes.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[tuple[str, ...], Tensor]] = []
        self._grad_norm: Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._kept = []
        keep_norm_on_device(runner.optim_wrapper, self._keep_norm)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Mapping | Sequence | None = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        values = dict(outputs or {})
        if self._grad_norm is not None:
            values[_GRAD_NORM], self._grad_norm = self._grad_norm, None
        on_device = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        super().after_train_iter(
            runner, batch_idx, data_batch, {name: value for name, value in values.items() if name not in on_device}
        )
        if on_device:
            self._kept.append((tuple(on_device), torch.stack([v.detach().float().mean() for v in on_device.values()])))
        if self._is_logged(runner, batch_idx):
            self._flush(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._flush(runner)

    def before_val(self, runner: Runner) -> None:
        self._flush(runner)
        super().before_val(runner)

    def before_gather_checkpoint(self, runner: Runner) -> None:
        """Called by `SafeRunner` on all processes, `before_save_checkpoint` on the first one."""
        self._flush(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._flush(runner, over_ranks=False)
        if "message_hub" in checkpoint:
            checkpoint["message_hub"] = runner.message_hub.state_dict()

    def after_train(self, runner: Runner) -> None:
        self._flush(runner)
        super().after_train(runner)

    def _flush(self, runner: Runner, *, over_ranks: bool = True) -> None:
        """Hand the values since the last time to the log; all processes call this together, if over ranks."""
        numbers = iter(torch.cat([values for _, values in self._kept]).tolist() if self._kept else ())
        iterations = [{name: next(numbers) for name in names} for names, _ in self._kept]
        self._kept = []
        if over_ranks and get_world_size() > 1:
            iterations = _means(all_gather_object(iterations))
        for values in iterations:
            for name, number in values.items():
                runner.message_hub.update_scalar(f"train/{name}", number)

    def _is_logged(self, runner: Runner, batch_idx: int) -> bool:
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        return (
            any(
                self.every_n_train_iters(runner, logger.interval)
                or self.every_n_inner_iters(batch_idx, logger.interval)
                or self.every_n_train_iters(runner, logger.interval_exp_name)
                for logger in loggers
            )
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or not loggers
        )

    def _keep_norm(self, norm: Tensor) -> None:
        self._grad_norm = norm.detach()


def _means(by_rank: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """The mean of each value of each iteration over the ranks that have it; a rank may have left out a step."""
    means: list[dict[str, float]] = []
    for ranks in zip_longest(*by_rank, fillvalue={}):
        names = dict.fromkeys(name for values in ranks for name in values)
        found = {name: [values[name] for values in ranks if name in values] for name in names}
        means.append({name: sum(values) / len(values) for name, values in found.items()})
    return means


def keep_norm_on_device(wrapper: OptimWrapper, keep: Callable[[Tensor], None]) -> None:
    """Let an optimizer's wrapper clip gradients without reading their norm; `keep` gets it instead."""
    if not wrapper.clip_grad_kwargs:
        return
    clip = wrapper.clip_func

    def clip_and_keep(*args: object, **kwargs: object) -> None:
        norm = clip(*args, **kwargs)
        if norm is not None:  # clipping by value has none
            keep(norm)

    wrapper.clip_func = clip_and_keep
