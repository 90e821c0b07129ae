"""Losses of mask maps as one node of autograd."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mmseg_m2f.structures import MaskReadings

#: Reads some of the maps, given as such and as a slice of all of them.
Reader = Callable[[Float[Tensor, "n H W"], slice], MaskReadings]
Loss = Callable[..., Float[Tensor, "n"]]


def map_losses(
    maps: Float[Tensor, "N H W"], read: Reader, losses: Sequence[Loss], *, at_once: int
) -> Float[Tensor, "L N"]:
    """Every loss of every map, `at_once` maps at a time.

    The loss of a map must depend on that map alone. Gradients are computed on the way and kept as one map per loss, so
    that nothing of the size of points or pixels of the canvas outlives its turn.
    """
    return _MapLosses.apply(maps, read, losses, at_once)


class _MapLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, maps: Tensor, read: Reader, losses: Sequence[Loss], at_once: int) -> Tensor:
        values = maps.new_empty(len(losses), len(maps))
        needed = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        gradients = maps.new_empty(len(losses), *maps.shape) if needed else None
        for first in range(0, len(maps), at_once):
            turn = slice(first, first + at_once)
            part = maps[turn].detach().requires_grad_(needed)
            with torch.set_grad_enabled(needed):
                readings = read(part, turn)
                per_loss = [loss(*readings) for loss in losses]
            for index, loss_values in enumerate(per_loss):
                values[index, turn] = loss_values.detach()
                if gradients is not None:
                    ones, last = torch.ones_like(loss_values), index == len(losses) - 1
                    (gradients[index, turn],) = torch.autograd.grad(loss_values, part, ones, retain_graph=not last)
        if gradients is not None:
            ctx.save_for_backward(gradients)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors  # type: ignore[attr-defined]
        total = gradients[0] * upstream[0, :, None, None]
        for gradient, scale in zip(gradients[1:], upstream[1:], strict=True):
            total.addcmul_(gradient, scale[:, None, None])
        return total, None, None, None
