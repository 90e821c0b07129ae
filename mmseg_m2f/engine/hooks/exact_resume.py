"""A resumed run goes on bit by bit where the stopped one would have, and starts at once."""

import os
import warnings
from collections.abc import Mapping
from typing import Any, cast

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Generator

from mmseg_m2f.engine.resume.data_order import NumberedBatches, OrderedBatches, order_data, restore_sampler
from mmseg_m2f.engine.resume.random_states import restore_random_states
from mmseg_m2f.engine.resume.run_state import (
    RUN_STATE,
    batch_size,
    collect_run_state,
    counts_epochs,
    describe_changes,
    restore_gradients,
)
from mmseg_m2f.registry import HOOKS


@HOOKS.register_module()
class ExactResume(Hook):
    """Restores what decides how a run goes on: random generators, order of the data, accumulated gradients.

    Data follow from seed and iteration (`resume.data_order`), so that neither loading nor drawing is repeated. What
    the checkpoint needs for it is stored by `SafeCheckpointHook`. Changes since the checkpoint was written are
    warned about: another number of processes or images, another folder. A validation that was due at the checkpoint's
    iteration, and that the checkpoint does not know of, is made up before training goes on.
    """

    priority = "LOWEST"  # after all hooks that draw random numbers before the first iteration

    def __init__(self) -> None:
        self._state: Mapping[str, Any] | None = None
        self._resumed = False
        self._first = (0, 0)  # iteration, and samples of all ranks, at which this process took over

    def after_load_checkpoint(self, runner: Runner, checkpoint: Mapping[str, object]) -> None:
        """Keeps the stored state, if the run is resumed and not only started from these weights."""
        if runner.cfg.get("resume") and isinstance(runner.optim_wrapper, (OptimWrapper, OptimWrapperDict)):
            self._resumed = True
            self._state = cast(Mapping[str, Any] | None, checkpoint.get(RUN_STATE))

    def before_train(self, runner: Runner) -> None:
        """Numbers the batches, and goes to the one of this iteration."""
        seed = runner.seed or 0
        if runner.val_loop is not None:
            runner.val_dataloader.generator = Generator().manual_seed(seed)
        loader = runner.train_dataloader
        if self._resumed:
            self._report(runner)
        if self._state is not None:
            restore_sampler(loader, self._state["sampler"])
        loop = runner.train_loop
        eager = getattr(loop, "dataloader_iterator", None)
        if eager is not None and not hasattr(eager, "skip_iter"):
            eager._iterator, loader._iterator = None, None  # mmengine 0.10.7 has started the workers already
        numbered = order_data(loader, seed=seed)
        epoch = self._seek(runner, numbered) if numbered is not None else 0
        if isinstance(loop, IterBasedTrainLoop):
            replayed = 0 if hasattr(eager, "skip_iter") else runner.iter
            loop.dataloader_iterator = OrderedBatches(loader, epoch=epoch, replayed=replayed)

    def before_train_epoch(self, runner: Runner) -> None:
        """Restores generators and gradients once, and makes up a lost validation."""
        if not self._resumed:
            return
        self._resumed = False
        state, self._state = self._state, None
        if state is not None:
            if get_rank() < len(state["random"]):
                restore_random_states(state["random"][get_rank()])
            restore_gradients(runner, state)
        if validation_is_due(runner):
            print_log(
                f"The validation after iteration {runner.iter} was lost with the stopped run: it is made up.",
                logger="current",
            )
            runner.val_loop.run()

    def collect(self, runner: Runner, *, iteration: int) -> dict[str, Any]:
        """The state after an iteration, see `collect_run_state`."""
        first, samples = self._first
        done = (iteration - first) * batch_size(runner) * get_world_size()
        return collect_run_state(runner, iteration=iteration, samples=samples + done)

    def _seek(self, runner: Runner, numbered: NumberedBatches) -> int:
        """Go to the batch of the iteration, and give the epoch it lies in."""
        size = batch_size(runner) * get_world_size()
        samples = runner.iter * size if self._state is None else int(self._state["samples"])
        self._first = (runner.iter, samples)
        epoch = runner.epoch if counts_epochs(runner) else None
        return numbered.seek(runner.iter, epoch=epoch, samples=samples)

    def _report(self, runner: Runner) -> None:
        if self._state is None:
            warnings.warn(
                f"{runner.cfg.get('load_from')}: expected the random states of the run, got a checkpoint without them, "
                "as other versions and mmengine write it. The run goes on with the right data, but augmentations and "
                "sampled points are not those that the stopped run would have drawn.",
                stacklevel=2,
            )
            return
        for change in describe_changes(runner, self._state):
            warnings.warn(f"Resumed from {os.path.abspath(runner.cfg.load_from)}. {change}", stacklevel=2)


def validation_is_due(runner: Runner) -> bool:
    """Whether the loop would have validated at this iteration, and the checkpoint does not hold that it has."""
    loop = runner.train_loop
    if runner.val_loop is None or runner.message_hub.runtime_info.get("last_validated_iter") == runner.iter:
        return False
    if counts_epochs(runner):
        at_end = runner.iter == runner.epoch * len(runner.train_dataloader)
        done, last = runner.epoch, runner.max_epochs
    else:
        at_end, done, last = True, runner.iter, runner.max_iters
    return at_end and done > 0 and done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)
