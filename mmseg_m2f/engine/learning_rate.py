"""The learning rate of the batch that counts, and the config's schedule in a resumed run."""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmseg_m2f.engine.resume.run_state import RUN_STATE, describe_trained, trained_parameters
from mmseg_m2f.errors import InvalidValueError

# What a scheduler's state says about progress; everything else in it comes from the config.
_PROGRESS = {"last_step", "_global_step", "_last_value", "verbose"}


def count_accumulation(runner: Runner) -> None:
    """Make the scaling of the learning rate count `optim_wrapper.accumulative_counts` batches as one.

    mmengine scales by batch size × ranks / `base_batch_size`; an optimizer step sees that many images times
    `accumulative_counts`. The config that the run writes keeps its `base_batch_size`.
    """
    scaling, wrapper = runner.auto_scale_lr, runner.optim_wrapper
    counts = wrapper.get("accumulative_counts", 1) if isinstance(wrapper, Mapping) else 1
    if not scaling or not scaling.get("enable") or counts == 1:
        return
    base = scaling["base_batch_size"]
    runner.auto_scale_lr = dict(scaling, base_batch_size=base / counts)
    print_log(
        f"Learning rate: {counts} batches are accumulated for a step, so that each counts as one of a base batch of "
        f"{base} / {counts}.",
        logger="current",
    )


def check_trained_parameters(runner: Runner, checkpoint: Mapping) -> None:
    """Raise ValueError where the optimizer of a checkpoint to resume from trains other parameters than the config's."""
    stored = checkpoint.get("optimizer")
    wrapper = runner.optim_wrapper
    if not isinstance(stored, Mapping) or "param_groups" not in stored or isinstance(wrapper, OptimWrapperDict):
        return
    before = [len(group["params"]) for group in stored["param_groups"]]
    now = [len(group["params"]) for group in cast(OptimWrapper, wrapper).optimizer.param_groups]
    state = cast(Mapping, checkpoint.get(RUN_STATE) or {})
    changed = describe_trained(state["trained"], trained_parameters(runner)) if state.get("trained") else ""
    if before != now or changed:
        cause = (
            f"Since then, {changed} (freeze_backbone, trainable, frozen_stages)."
            if changed
            else "Parts were frozen or set free (freeze_backbone, trainable, frozen_stages), or paramwise_cfg changed."
        )
        raise InvalidValueError(
            f"Cannot resume from {runner.cfg.get('load_from')}: its optimizer trains {sum(before)} parameters in "
            f"{len(before)} groups, the config's {sum(now)} in {len(now)}; expected the same. {cause} Undo that, or "
            "start anew from the weights: leave --resume out and give --cfg-options load_from=CHECKPOINT."
        )


class ConfiguredSchedule:
    """The schedule that the config describes, kept while mmengine puts that of a checkpoint in its place.

    A scheduler's state in a checkpoint holds its settings as well as its progress. mmengine restores both, so that a
    run resumed with more iterations, another rate or another schedule goes on with the old one, whose rate may have
    ended at 0.

    Args:
        runner: Before it takes over the state of the checkpoint.
        checkpoint: What it is about to resume from.
    """

    def __init__(self, runner: Runner, checkpoint: Mapping) -> None:
        self._states = [copy.deepcopy(scheduler.state_dict()) for scheduler in _flatten(runner.param_schedulers)]
        self._groups = [_numbers(group) for group in _groups(runner)]
        stored = [_settings(state) for state in _flatten(checkpoint.get("param_schedulers"))]
        self._differs = stored != [_settings(state) for state in self._states]

    def restore(self, runner: Runner) -> bool:
        """Put the config's schedule where it differs from the checkpoint's, at the iteration that the run is at.

        Returns:
            Whether it differed; if not, nothing is touched.
        """
        if self._states and self._differs:
            self._replay(runner)
        elif self._states or not self._restore_constant_rate(runner):
            return False
        rates = sorted({group["lr"] for group in _groups(runner)})
        print_log(
            f"Resumed at iteration {runner.iter} with another schedule than the checkpoint's: the config's holds, "
            f"learning rate {', '.join(f'{rate:.3g}' for rate in rates)}.",
            logger="current",
        )
        return True

    def _restore_constant_rate(self, runner: Runner) -> bool:
        """Without schedulers: the config's rate, which a hook may multiply; whether it changed."""
        changed = False
        for group, configured in zip(_groups(runner), self._groups, strict=True):
            if group.get("initial_lr", group["lr"]) != configured["lr"]:
                changed = True
                group["lr"] = configured["lr"]
                if "initial_lr" in group:
                    group["initial_lr"] = configured["lr"]
        return changed

    def _replay(self, runner: Runner) -> None:
        """Step the config's schedulers from the start: their values follow from one step to the next."""
        for group, configured in zip(_groups(runner), self._groups, strict=True):
            group.update(configured)
        schedulers = list(_flatten(runner.param_schedulers))
        for scheduler, state in zip(schedulers, self._states, strict=True):
            optimizer = scheduler.optimizer
            scheduler.__dict__.clear()  # settings of another type's state would stay
            scheduler.__dict__.update(copy.deepcopy(state), optimizer=optimizer)
        steppable = [scheduler for scheduler in schedulers if not getattr(scheduler, "need_val_args", False)]
        if len(steppable) < len(schedulers):
            warnings.warn(
                "Resumed with another schedule: schedulers that follow a metric start anew, because the metrics of "
                "earlier iterations are not stored.",
                stacklevel=2,
            )
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        epoch_length = len(runner.train_dataloader) if by_epoch else runner.max_iters + 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `scheduler.step")
            for done in range(1, runner.iter + 1):
                for scheduler in steppable:
                    if not scheduler.by_epoch or done % epoch_length == 0:
                        scheduler.step()


def _flatten(schedulers: object) -> Iterator:
    """The schedulers, or their states, of one optimizer or of several."""
    lists = list(schedulers.values()) if isinstance(schedulers, Mapping) else [schedulers or []]
    for items in cast(Iterable[Iterable], lists):
        yield from items


def _groups(runner: Runner) -> Iterator[dict]:
    wrapper = runner.optim_wrapper
    for part in list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        yield from part.param_groups


def _settings(state: Mapping) -> dict[str, object]:
    return {key: value for key, value in state.items() if key not in _PROGRESS}


def _numbers(group: Mapping) -> dict[str, object]:
    """The settings of a parameter group: rates, momentum, decay, and their initial values."""
    return {key: value for key, value in group.items() if isinstance(value, (int, float))}
