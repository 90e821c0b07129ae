"""A NaN or an infinite number ends the run with its place, before the optimizer spreads it over all weights."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmseg_m2f.engine.held_gradients import has_gradients, held_gradients
from mmseg_m2f.engine.non_finite.diagnosis import diagnose, image_files
from mmseg_m2f.engine.non_finite.stored_steps import save_step
from mmseg_m2f.engine.resume.random_states import RandomStates, capture_random_states, restore_random_states
from mmseg_m2f.engine.resume.run_state import unwrapped
from mmseg_m2f.engine.sharding import is_sharded
from mmseg_m2f.engine.zero import ZeroOptimizer
from mmseg_m2f.errors import InvalidValueError, NonFiniteError
from mmseg_m2f.registry import HOOKS

_POLICIES = ("raise", "skip", "lower_loss_scale")
_SKIPPED = "skipped_steps"  # in the message hub, which checkpoints hold


@dataclass
class _Step:
    """A step as it begins, to repeat it or to take it back."""

    batch: object
    random: RandomStates


@HOOKS.register_module()
class NonFiniteGuard(Hook):
    """Looks at loss and gradients before each step of the optimizer; where one is not finite, the step is not made.

    The look is one read from the device an iteration. The message says the iteration, the images of the batch, the
    first layer whose output is not finite (found by repeating the step with hooks), precision, learning rate and norm
    of the gradients. `non_finite_iter_N.pth` in the work folder holds the step; `tools/train.py --replay` repeats it.
    The launcher installs the hook. It watches one optimizer, not several.

    Args:
        policy: `raise` ends the run. `skip` leaves the step out and goes on: weights, optimizer and batch norm
            statistics stay. `lower_loss_scale` does so where a gradient overflows and the optimizer's wrapper scales
            the loss (float16): the wrapper halves the scale; a loss that is not finite ends the run. None is
            `lower_loss_scale` for wrappers that scale, and `raise` for others.
        max_skips: So many steps may be left out, those before a resumption included, then the run ends. Overflows of a
            loss scale above 1 do not count.

    Raises:
        NonFiniteError: By the policy.
    """

    priority = "LOWEST"  # batches as all other hooks leave them

    def __init__(self, *, policy: str | None = None, max_skips: int = 20) -> None:
        if policy is not None and policy not in _POLICIES:
            raise InvalidValueError(
                f"NonFiniteGuard.policy is {policy!r}; expected one of {', '.join(_POLICIES)}, or None."
            )
        self.policy = policy
        self.max_skips = max_skips
        self.num_skips = 0
        self._step: _Step | None = None
        self._original: Any = {}

    def before_train(self, runner: Runner) -> None:
        """Puts itself between the backward pass and the optimizer."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper):
            print_log("NonFiniteGuard: several optimizers are not watched.", logger="current")
            return
        scaler = _scaler(wrapper)
        if self.policy is None:
            self.policy = "raise" if scaler is None else "lower_loss_scale"
        if self.policy == "lower_loss_scale" and scaler is None:
            raise InvalidValueError(
                f"NonFiniteGuard.policy is 'lower_loss_scale', but {type(wrapper).__name__} does not scale the loss; "
                "expected AmpOptimWrapper with loss_scale. Take the policy 'raise' or 'skip'."
            )
        self.num_skips = int(runner.message_hub.runtime_info.get(_SKIPPED, 0))  # of a run that is resumed
        self._buffers = _persistent_buffers(unwrapped(runner.model))
        self._buffers_before = [buffer.clone() for buffer in self._buffers]
        self._original = dict(train_step=runner.model.train_step, backward=wrapper.backward, step=wrapper.step)
        make_step = functools.partial(self._make_step, runner)
        object.__setattr__(
            runner.model, "train_step", lambda *args, **kwargs: self._train_step(runner, *args, **kwargs)
        )
        wrapper.backward = lambda loss, **kwargs: self._backward(runner, loss, **kwargs)
        wrapper.step = functools.wraps(wrapper.step)(make_step)  # with the mark by which schedulers know it

    def after_train(self, runner: Runner) -> None:
        """Takes itself out again."""
        if self._original:
            object.__setattr__(runner.model, "train_step", self._original["train_step"])
            runner.optim_wrapper.backward = self._original["backward"]
            runner.optim_wrapper.step = self._original["step"]
            self._original = {}

    def _train_step(self, runner: Runner, data: object, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        self._step = _Step(data, capture_random_states())
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)
        try:
            return self._original["train_step"](data, optim_wrapper=optim_wrapper)
        except NonFiniteError as error:
            if self._step is None:  # explained already
                raise
            self._handle(runner, str(error), own=True)
            # What the rest of the step would have done for accumulation:
            optim_wrapper._inner_count += 1
            if optim_wrapper.should_update():
                optim_wrapper.step()
                optim_wrapper.zero_grad()
            return {}

    def _backward(self, runner: Runner, loss: Tensor, **kwargs: object) -> None:
        self._original["backward"](loss, **kwargs)
        gradients = _gradients(runner)
        peaks = torch._foreach_norm(gradients, float("inf")) if gradients else []
        finite = torch.isfinite(torch.stack([loss.detach().float(), *(peak.float() for peak in peaks)]))
        state = torch.stack([finite[0], finite.all()]).to(torch.int32)
        all_reduce(state, "min")  # all processes decide alike
        loss_finite, all_finite = state.tolist()
        if all_finite:
            return
        scaler = _scaler(runner.optim_wrapper)
        if self.policy == "lower_loss_scale" and loss_finite and scaler is not None and scaler.get_scale() > 1:
            print_log(
                f"Iteration {runner.iter + 1}: a gradient overflows with loss scale {scaler.get_scale():g}; the step "
                "is left out and the scale lowered.",
                logger="current",
            )
            return  # the scaler does the rest
        said = "a gradient is not finite" if loss_finite else f"the loss is not finite ({float(loss.detach())})"
        own_loss_finite, own_finite = bool(finite[0]), bool(finite.all())
        self._handle(runner, said, own=not (own_finite if loss_finite else own_loss_finite))
        runner.optim_wrapper.zero_grad()

    def _make_step(self, runner: Runner, **kwargs: object) -> None:
        if has_gradients(unwrapped(runner.model), runner.optim_wrapper.optimizer):
            self._original["step"](**kwargs)

    def _handle(self, runner: Runner, said: str, *, own: bool) -> None:
        """Leave the step out or end the run, by the policy.

        Args:
            own: Whether this process has found it, and not only another one: its loss, or a gradient where all losses
                are finite, which all processes then have.
        """
        step = self._step
        assert step is not None
        norm = _gradient_norm(runner)
        self._restore_buffers()
        if self.policy == "skip" and self.num_skips < self.max_skips:
            self.num_skips += 1
            runner.message_hub.update_info(_SKIPPED, self.num_skips)
            files = ", ".join(image_files(step.batch))
            print_log(
                f"Iteration {runner.iter + 1}: {said}. The step is left out, {self.num_skips} of at most "
                f"{self.max_skips}. Images: {files}.",
                logger="current",
            )
            return
        message = self._explain(runner, step, said, norm=norm, own=own)
        self._step = None
        raise NonFiniteError(message)

    def _restore_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._buffers_before)

    def _explain(self, runner: Runner, step: _Step, said: str, *, norm: float, own: bool) -> str:
        """Repeat the step, write it to a file, and give the message that all processes end with."""
        wrapper = runner.optim_wrapper
        wrapper.zero_grad()
        model = _whole_model(runner)
        restore_random_states(step.random)
        scaler = _scaler(wrapper)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        found = diagnose(model, step.batch, context=lambda: wrapper.optim_context(model), loss_scale=scale)
        self._restore_buffers()
        number = runner.iter + 1
        rank = f"_rank{get_rank()}" if get_world_size() > 1 else ""
        path = Path(runner.work_dir) / f"non_finite_iter_{number}{rank}.pth"
        rates = sorted({group["lr"] for group in wrapper.param_groups})
        lines = [
            f"Iteration {number}: {said}; expected finite numbers.",
            f"Images: {', '.join(image_files(step.batch)) or 'without names'}.",
            *(found.lines() or ["Repeating the step gave finite numbers: the fault lies outside of the model."]),
            f"Precision {found.dtype}, learning rate {', '.join(f'{rate:.3g}' for rate in rates)}, gradient norm "
            f"{norm:.3g}{f', loss scale {scale:g}' if scaler is not None else ''}.",
            found.advice(),
        ]
        if own:
            autocast = None if found.dtype == "float32" else found.dtype
            about = dict(iteration=number, autocast=autocast, loss_scale=scale, message="\n".join(lines))
            save_step(path, model=model, batch=step.batch, random=step.random, cfg=runner.cfg, about=about)
            lines.append(f"The step is stored: `python tools/train.py --replay {path}` repeats it.")
        lines.append(f"Weights and checkpoints in {runner.work_dir} are as they were before it.")
        by_rank = all_gather_object((own, bool(found), "\n".join(lines)))
        return max(by_rank, key=lambda entry: entry[:2])[2]  # the first process whose replay found it


def _scaler(wrapper: OptimWrapper) -> Any:  # noqa: ANN401  (torch has several classes)
    """The loss scaler of an optimizer's wrapper, None where it does not scale."""
    scaler = getattr(wrapper, "loss_scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _persistent_buffers(model: nn.Module) -> list[Tensor]:
    """What a step may change besides the weights: statistics of batch norms, counters."""
    parameters: Mapping[str, object] = dict(model.named_parameters())
    stored = set(model.state_dict())
    return [buffer for name, buffer in model.named_buffers() if name in stored and name not in parameters]


def _gradients(runner: Runner) -> list[Tensor]:
    """What this process holds of the gradients."""
    held = held_gradients(unwrapped(runner.model), runner.optim_wrapper.optimizer)
    return [gradient.detach() for gradient in held.values() if gradient.numel()]


def _gradient_norm(runner: Runner) -> float:
    norms = [gradient.float().norm() for gradient in _gradients(runner)]
    squares = torch.stack(norms).square().sum() if norms else torch.tensor(float("nan"))
    if is_sharded(unwrapped(runner.model)):
        all_reduce(squares)
    return float(squares.sqrt())


def _whole_model(runner: Runner) -> nn.Module:
    """The model that a step is repeated with; where it is spread, a copy that needs no other process."""
    model = unwrapped(runner.model)
    if not is_sharded(model) and not isinstance(runner.optim_wrapper.optimizer, ZeroOptimizer):
        return model
    weights = model.state_dict()
    copy = MODELS.build(runner.cfg.model)
    copy.load_state_dict(weights)
    return copy.to(next(model.parameters()).device).train()
