"""What a process has of the gradients between backward pass and step, however a model is spread over processes."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from mmseg_m2f.engine.sharding import is_sharded, local_part, with_part
from mmseg_m2f.engine.zero import ZeroOptimizer


def held_gradients(model: nn.Module, optimizer: Optimizer | None) -> dict[str, Tensor]:
    """The gradients of this process, or its parts of them, which may be empty, by the names of their parameters."""
    if isinstance(optimizer, ZeroOptimizer):
        return optimizer.held_gradients()
    return {name: local_part(p.grad.detach()) for name, p in model.named_parameters() if p.grad is not None}


def restore_held_gradients(model: nn.Module, optimizer: Optimizer | None, gradients: Mapping[str, Tensor]) -> None:
    """Give this process what `held_gradients` gave."""
    if isinstance(optimizer, ZeroOptimizer):
        optimizer.restore_gradients(gradients)
        return
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = with_part(parameter, gradients[name].to(parameter.device, parameter.dtype))


def gradient_layout(model: nn.Module, optimizer: Optimizer | None) -> str:
    """What `held_gradients` means: `own` sums of the process, `parts` of means (FSDP), `means` (ZeRO from stage 2)."""
    if isinstance(optimizer, ZeroOptimizer) and optimizer.spreads_gradients:
        return "means"
    return "parts" if is_sharded(model) else "own"


def has_gradients(model: nn.Module, optimizer: Optimizer | None) -> bool:
    """Whether there is something to step with; the same on all processes where a step needs all of them."""
    if isinstance(optimizer, ZeroOptimizer):
        return optimizer.has_gradients
    return any(parameter.grad is not None for parameter in model.parameters())
