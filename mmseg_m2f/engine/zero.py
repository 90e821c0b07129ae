"""Optimizer states, and gradients, spread over processes: ZeRO stages 1 and 2 (arXiv 1910.02054) by DeepSpeed.

Each process computes with the whole model and keeps a part of every optimizer state, from stage 2 on also of every
gradient. A model and its optimizer are built, filled and resumed whole, then spread; state dicts are gathered whole.
So a checkpoint is the same file with and without DeepSpeed, and loads anywhere.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from mmseg_m2f.engine.whole_states import WholeStates
from mmseg_m2f.errors import InvalidTypeError, InvalidValueError, NonFiniteError

#: Optimizers that treat numbers one by one, so that parameters may be updated as one flat tensor.
OPTIMIZERS = (SGD, Adam, AdamW)
_BUCKET = 50_000_000  # numbers that processes exchange at once


@dataclass(frozen=True)
class Zero:
    """How a model is trained with DeepSpeed.

    Attributes:
        stage: 1 spreads optimizer states, 2 gradients as well.
        reduce_bucket_size: Gradients that are summed at once, in numbers.
        allgather_bucket_size: Weights that are gathered at once, in numbers.
    """

    stage: int = 1
    reduce_bucket_size: int = _BUCKET
    allgather_bucket_size: int = _BUCKET


def import_deepspeed() -> ModuleType:
    """DeepSpeed, told to build nothing when it starts.

    Raises:
        TypeError: It is not installed.
    """
    try:
        import deepspeed
    except ModuleNotFoundError as error:
        raise InvalidTypeError(
            "DeepSpeedStrategy: expected the package deepspeed, which is not installed. "
            'Run `pip install "mmseg-m2f[deepspeed]"`, or take FSDPStrategy.'
        ) from error
    deepspeed.utils.logger.setLevel(logging.WARNING)
    if deepspeed.get_accelerator().device_name() == "cpu":
        # An extension for inference that is compiled at the start of a run, and waits without end for the lock of a
        # start that was killed meanwhile. Training never calls it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return cast(ModuleType, deepspeed)


def spread(model: BaseModel, wrapper: OptimWrapper, zero: Zero) -> "ZeroModel":
    """Spread optimizer states over all processes of the default group; each has to call it.

    Args:
        model: The same on all processes. It goes to DeepSpeed's device.
        wrapper: Of the optimizer of the whole model, which may have states. It gets an optimizer that looks the same
            from outside, and leaves clipping to it.

    Returns:
        The model with DeepSpeed's forward pass in training.

    Raises:
        TypeError: The optimizer is another one than SGD, Adam or AdamW, or DeepSpeed is not installed.
        ValueError: Gradients are clipped in a way that DeepSpeed does not know, a parameter has no dimension, or states
            of parameters of one group are of different steps.
    """
    optimizer = wrapper.optimizer
    if type(optimizer) not in OPTIMIZERS:
        raise InvalidTypeError(
            f"DeepSpeedStrategy with {type(optimizer).__name__}: expected {', '.join(k.__name__ for k in OPTIMIZERS)}, "
            "which treat numbers one by one. Set optim_wrapper.optimizer.type to one of them, or use FSDPStrategy."
        )
    for name, parameter in model.named_parameters():
        if not parameter.dim():
            raise InvalidValueError(
                f"DeepSpeedStrategy with model parameter {name} of shape (): expected parameters with a dimension, "
                "which DeepSpeed can send. Give it the shape (1,), or use FSDPStrategy."
            )
    whole = WholeStates(model, optimizer)
    with wrapper.optim_context(model):
        device = next(model.parameters()).device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    engine, *_ = import_deepspeed().initialize(
        model=model,
        optimizer=optimizer,
        config=_config(zero, clip=clip_norm(wrapper.clip_grad_kwargs), autocast=autocast, model=model),
    )
    whole.give_to(optimizer)
    spread_optimizer = ZeroOptimizer(engine, optimizer, whole)
    wrapper.optimizer = spread_optimizer
    _use_engine(wrapper, engine, spread_optimizer)
    return ZeroModel(engine)


def clip_norm(clip: Mapping[str, Any] | None) -> float:
    """The norm that gradients are clipped to; 0 where they are not.

    Raises:
        ValueError: They are clipped in a way that DeepSpeed does not know.
    """
    if not clip:
        return 0.0
    unknown = [name for name in clip if name not in ("type", "max_norm", "norm_type")]
    if unknown or clip.get("type", "norm") != "norm" or clip.get("norm_type", 2) != 2:
        raise InvalidValueError(
            f"DeepSpeedStrategy with optim_wrapper.clip_grad={dict(clip)}: expected dict(max_norm=NORM, norm_type=2). "
            "Set that, or use FSDPStrategy."
        )
    return float(clip["max_norm"])


class ZeroOptimizer(Optimizer):
    """DeepSpeed's optimizer with the groups and the state dict of that of the whole model.

    Args:
        engine: DeepSpeed's engine.
        optimizer: Of flat parts, which DeepSpeed steps.
        whole: What it was before.
    """

    def __init__(self, engine: Any, optimizer: Optimizer, whole: WholeStates) -> None:  # noqa: ANN401  (optional)
        self.engine, self._optimizer, self._whole = engine, optimizer, whole
        self.has_gradients = False
        self.after_step: Callable[[], object] | None = None
        super().__init__(whole.groups, optimizer.defaults)
        self.param_groups = whole.groups

    @property
    def spreads_gradients(self) -> bool:
        """Whether gradients are spread too, from stage 2 on."""
        return bool(self.engine.optimizer.partition_gradients)

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Sums gradients over processes, clips them, and updates the weights, with the options of the groups.

        Raises:
            NonFiniteError: The norm of the gradients is not finite.
        """
        for group, flat in zip(self._whole.spread_groups, self._optimizer.param_groups, strict=True):
            flat.update({key: value for key, value in group.items() if key != "params"})
        self.engine.step()
        if not self.engine.was_step_applied():
            raise NonFiniteError(
                "DeepSpeedStrategy: the norm of the gradients is not finite; expected finite gradients. DeepSpeed left "
                "the step out. Lower the learning rate, or clip gradients (optim_wrapper.clip_grad)."
            )
        if self.after_step is not None:
            self.after_step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients, those of earlier batches of a step too."""
        self.has_gradients = False
        zero = self.engine.optimizer
        zero.zero_grad(set_to_none=True)
        for index in range(len(self._optimizer.param_groups)):
            zero.all_grad_tensors[index] = None
            zero.averaged_gradients[index] = None

    def state_dict(self) -> dict[str, Any]:
        """That of the optimizer of the whole model; all processes have to ask for it."""
        return self._whole.gather(self._optimizer)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Not supported: states are loaded before they are spread."""
        raise InvalidTypeError("ZeroOptimizer.load_state_dict: expected states before `spread`. Load them earlier.")

    def held_gradients(self) -> dict[str, Tensor]:
        """The gradients that this process has before a step, by the names of their parameters.

        In stage 1 those of its own batches. In stage 2 the means over processes, in full for parameters of which it
        updates a part; there, numbers that another process updates mean nothing.
        """
        zero = self.engine.optimizer
        if not self.spreads_gradients:
            parameters = [p for group in self.param_groups for p in group["params"]]
            return {self._whole.names[id(p)]: p.grad for p in parameters if p.grad is not None}
        return {
            self._whole.names[id(parameter)]: gradient
            for index, parameters in enumerate(zero.params_in_partition)
            for parameter, gradient in zip(parameters, zero.all_grad_tensors.get(index) or (), strict=False)
        }

    def restore_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Give this process what its `held_gradients` were; all processes have to be given theirs."""
        self.has_gradients = True
        zero = self.engine.optimizer
        for parameter in [p for group in self.param_groups for p in group["params"]]:
            gradient = gradients.get(self._whole.names[id(parameter)])
            if gradient is not None and not self.spreads_gradients:
                parameter.grad = gradient.to(parameter.device, parameter.dtype)
        for index, parameters in enumerate(zero.params_in_partition if self.spreads_gradients else ()):
            found = [gradients.get(self._whole.names[id(parameter)]) for parameter in parameters]
            if found and all(gradient is not None for gradient in found):
                zero.all_grad_tensors[index] = [
                    gradient.to(parameter.device, parameter.dtype)
                    for gradient, parameter in zip(found, parameters, strict=True)
                    if gradient is not None
                ]


@MODEL_WRAPPERS.register_module()
class ZeroModel(nn.Module):
    """A model whose forward pass in training is DeepSpeed's; in evaluation each process runs it alone.

    Args:
        engine: DeepSpeed's engine, which has the model as `module`.
    """

    engine: Any

    def __init__(self, engine: Any) -> None:  # noqa: ANN401  (optional)
        super().__init__()
        self.module: BaseModel = engine.module
        object.__setattr__(self, "engine", engine)  # not as a module: it has the same parameters
        self.module.register_state_dict_post_hook(_part_from_flat)

    def train_step(self, data: object, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Losses of a batch, and a step of the optimizer where it is due."""
        with optim_wrapper.optim_context(self):
            batch: Any = self.module.data_preprocessor(data, True)
            named, listed = (batch, ()) if isinstance(batch, Mapping) else ({}, batch)
            losses = self.engine(*listed, **named, mode="loss")
        loss, log_vars = self.module.parse_losses(losses)
        optim_wrapper.update_params(loss)
        return log_vars

    def val_step(self, data: object) -> list:
        """Predictions of a batch."""
        return self.module.val_step(data)

    def test_step(self, data: object) -> list:
        """Predictions of a batch."""
        return self.module.test_step(data)


def _config(zero: Zero, *, clip: float, autocast: torch.dtype | None, model: nn.Module) -> dict[str, Any]:
    """DeepSpeed's config. Batch sizes there only count; accumulation is mmengine's, which steps when it is due."""
    bucket = min(zero.reduce_bucket_size, sum(parameter.numel() for parameter in model.parameters()))
    config: dict[str, Any] = dict(
        train_micro_batch_size_per_gpu=1,
        gradient_accumulation_steps=1,
        managed_gradient_accumulation=False,
        gradient_clipping=clip,
        steps_per_print=10**15,
        zero_allow_untested_optimizer=True,
        zero_optimization=dict(
            stage=zero.stage,
            reduce_bucket_size=bucket,
            allgather_bucket_size=zero.allgather_bucket_size,
            overlap_comm=False,
        ),
    )
    if autocast is not None:  # weights stay float32, and gradients are summed in it
        config["torch_autocast"] = dict(
            enabled=True, dtype=str(autocast).rpartition(".")[2], lower_precision_safe_modules=[]
        )
    return config


def _use_engine(wrapper: OptimWrapper, engine: Any, optimizer: ZeroOptimizer) -> None:  # noqa: ANN401  (optional)
    """Let an optimizer's wrapper run backward passes, and report the norm of gradients, by DeepSpeed."""

    def backward(loss: Tensor, **kwargs: object) -> None:
        engine.backward(loss, **kwargs)
        optimizer.has_gradients = True
        wrapper._inner_count += 1

    def norm(*args: object, **kwargs: object) -> Tensor:
        return torch.as_tensor(engine.get_global_grad_norm())

    def report() -> None:
        found = wrapper.clip_func()
        if found is not None:
            wrapper.message_hub.update_scalar(f"train/{wrapper.grad_name}", float(found))

    wrapper.backward = backward
    if wrapper.clip_grad_kwargs:
        wrapper.clip_func = norm
        wrapper._clip_grad = lambda: None  # DeepSpeed clips in its step
        optimizer.after_step = report


def _part_from_flat(module: nn.Module, state: dict, prefix: str, metadata: object) -> None:
    """Give weights storage of their own, so that none is written as a view of all; those of a GPU are copied anyway."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_cpu and value.untyped_storage().nbytes() > value.nbytes:
            state[name] = value.clone()
