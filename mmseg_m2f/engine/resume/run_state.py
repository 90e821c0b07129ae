"""What a checkpoint holds besides weights and optimizer, so that a resumed run goes on bit by bit; and what changed."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, gather_object, get_rank, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mmseg_m2f.engine.held_gradients import gradient_layout, held_gradients, restore_held_gradients
from mmseg_m2f.engine.resume.data_order import sampler_state
from mmseg_m2f.engine.resume.random_states import capture_random_states

RUN_STATE = "run_state"  # its key in a checkpoint


def collect_run_state(runner: Runner, *, iteration: int, samples: int) -> dict[str, Any]:
    """The state of a run after an iteration; every rank has to call it, and the first one gets all.

    Args:
        iteration: How many are done.
        samples: How many samples all ranks have had.

    Returns:
        `random`: the states of the generators of each rank; `gradients`: those of each rank by name, where the
        optimizer has not used them yet; what the order of the data follows from; and how the run is set up.
    """
    accumulation = accumulated_batches(runner)
    state: dict[str, Any] = dict(
        iteration=iteration,
        samples=samples,
        processes=get_world_size(),
        batch_size=batch_size(runner),
        accumulation=accumulation,
        sampler=dict(sampler_state(runner.train_dataloader)),
        work_dir=os.path.abspath(runner.work_dir),
        trained=trained_parameters(runner),
        random=all_gather_object(capture_random_states()),
    )
    if iteration % accumulation:
        model, optimizer = unwrapped(runner.model), _optimizer(runner)
        held = {name: gradient.detach().cpu() for name, gradient in held_gradients(model, optimizer).items()}
        state["gradients"] = gather_object(held) or []
        state["gradient_layout"] = gradient_layout(model, optimizer)
    return state


def restore_gradients(runner: Runner, state: Mapping[str, Any]) -> None:
    """Give the parameters the gradients that wait for the optimizer."""
    by_rank: Sequence[Mapping[str, Tensor]] = state.get("gradients") or []
    if len(by_rank) != get_world_size() or state["accumulation"] != accumulated_batches(runner):
        return
    model, optimizer = unwrapped(runner.model), _optimizer(runner)
    before, now = state.get("gradient_layout"), gradient_layout(model, optimizer)
    if before not in (None, now):
        warnings.warn(
            f"The checkpoint holds gradients of a step that had begun, spread over processes in another way ({before}; "
            f"now {now}). They are left out, and the run is not bit-exact. Resume with the strategy that wrote it.",
            stacklevel=2,
        )
        return
    restore_held_gradients(model, optimizer, by_rank[get_rank()])


def describe_changes(runner: Runner, state: Mapping[str, Any]) -> list[str]:
    """What differs from the run that wrote the checkpoint, and what to do about it; one text for each change."""
    changes = []
    here = os.path.abspath(runner.work_dir)
    if state["work_dir"] != here:
        changes.append(
            f"The run was in {state['work_dir']} and goes on in {here}. Checkpoints that are to be deleted or replaced "
            "are those of the new folder; the old one stays as it is."
        )
    before = tuple(state[key] for key in ("processes", "batch_size", "accumulation"))
    now = (get_world_size(), batch_size(runner), accumulated_batches(runner))
    if before != now:
        changes.append(_changed_batch(before, now))
    return changes


def describe_trained(before: Sequence[str], now: Sequence[str]) -> str:
    """Which parameters were frozen or set free; empty where the same ones are trained."""
    frozen = [name for name in before if name not in set(now)]
    freed = [name for name in now if name not in set(before)]
    parts = [
        f"{len(names)} parameters were {what} ({', '.join(names[:3])}{' ...' if names[3:] else ''})"
        for what, names in (("frozen", frozen), ("set free", freed))
        if names
    ]
    return " and ".join(parts)


def trained_parameters(runner: Runner) -> list[str]:
    """The names of the parameters in the order of the optimizer's groups; none for several optimizers."""
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper):
        return []
    names = {id(parameter): name for name, parameter in unwrapped(runner.model).named_parameters()}
    groups = wrapper.optimizer.param_groups
    return [names.get(id(parameter), "?") for group in groups for parameter in group["params"]]


def accumulated_batches(runner: Runner) -> int:
    """How many batches make one step of the optimizer."""
    return int(getattr(runner.optim_wrapper, "_accumulative_counts", 1))


def batch_size(runner: Runner) -> int:
    """Images in a batch of one process; 0 where batches have no fixed size."""
    loader = runner.train_dataloader
    return int(loader.batch_size or getattr(loader.batch_sampler, "batch_size", 0) or 0)


def counts_epochs(runner: Runner) -> bool:
    """Whether the training loop goes through epochs."""
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model below the distributed wrapper."""
    while is_model_wrapper(model):
        model = model.get_submodule("module")
    return model


def _optimizer(runner: Runner) -> Optimizer | None:
    """The optimizer; None where there are several."""
    wrapper = runner.optim_wrapper
    return wrapper.optimizer if isinstance(wrapper, OptimWrapper) else None


def _changed_batch(before: tuple[int, ...], now: tuple[int, ...]) -> str:
    def said(setup: tuple[int, ...]) -> str:
        processes, size, accumulation = setup
        return (
            f"{processes} processes x {size} images x {accumulation} accumulated batches = "
            f"{processes * size * accumulation} images a step"
        )

    same = torch.tensor(before).prod() == torch.tensor(now).prod()
    advice = (
        "The optimizer sees as many images a step as before."
        if same
        else "The learning rate is the config's. Set train_dataloader.batch_size or "
        "optim_wrapper.accumulative_counts so that a step has as many images as before, or scale the rate with "
        "--auto-scale-lr."
    )
    return (
        f"Before: {said(before)}; now: {said(now)}. {advice} The data go on after the last image of the earlier run; "
        "the run is not bit-exact."
    )
