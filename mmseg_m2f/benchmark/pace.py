"""How fast a config trains with its own data: iterations per second, and how long the host waits for batches."""

import os
import time
from dataclasses import dataclass

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_m2f.config.options import Options
from mmseg_m2f.engine.launch import train
from mmseg_m2f.errors import InvalidValueError

_NEVER = 10**9


@dataclass(frozen=True)
class Pace:
    """What was measured.

    Args:
        waiting: share of the time that the host waited for the next batch; on a GPU the device may still compute then.
        batch: images per iteration and process.
    """

    config: str
    iterations: int
    iterations_per_second: float
    waiting: float
    batch: int
    device: str


class _EnoughMeasured(Exception):
    pass


class _Clock(Hook):
    """Measures from the end of iteration `warm_up` to that of `warm_up + iterations`, and ends the training there."""

    priority = "LOWEST"  # after what other hooks do in an iteration

    def __init__(self, *, warm_up: int, iterations: int) -> None:
        self.warm_up, self.last = warm_up, warm_up + iterations
        self.done = 0
        self.started = self.ended = self.waited = 0.0
        self.batch = 0

    def before_train(self, runner: Runner) -> None:
        self.batch = runner.train_dataloader.batch_size

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        if self.done >= self.warm_up:
            self.waited += time.perf_counter() - self.ended

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        self.done += 1
        if self.done in (self.warm_up, self.last) and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended = time.perf_counter()
        if self.done == self.warm_up:
            self.started = self.ended
        if self.done == self.last:
            raise _EnoughMeasured


def measure_training(
    config: str | os.PathLike[str],
    options: Options | None = None,
    *,
    iterations: int,
    warm_up: int,
    amp: bool,
    work_dir: str | os.PathLike[str],
) -> Pace:
    """Train a config from its start for a few iterations, without validation.

    Raises:
        ValueError: no iteration to measure or to warm up; or the config trains for fewer.
    """
    if iterations < 1 or warm_up < 1:
        raise InvalidValueError(f"iterations, warm-up: expected at least 1 each, got {iterations} and {warm_up}.")
    clock = _Clock(warm_up=warm_up, iterations=iterations)
    try:
        runner = train(
            config,
            {**(options or {}), "train_cfg.val_interval": _NEVER},
            work_dir=str(work_dir),
            amp=amp,
            hooks=[clock],
        )
    except _EnoughMeasured:
        seconds = clock.ended - clock.started
        return Pace(
            config=str(config),
            iterations=iterations,
            iterations_per_second=iterations / seconds,
            waiting=clock.waited / seconds,
            batch=clock.batch,
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        )
    raise InvalidValueError(
        f"{config}: expected at least {warm_up + iterations} iterations, got a training of {runner.max_iters}. Lower "
        "--iterations and --warm-up, or raise train_cfg.max_iters."
    )
