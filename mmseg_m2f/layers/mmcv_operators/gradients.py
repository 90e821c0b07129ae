"""Backward operators by way of autograd: the forward function runs again on copies that record gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmseg_m2f.layers.mmcv_operators.weighted_rows import single


def recording(*tensors: Tensor) -> list[Tensor]:
    """The tensors as leaves of autograd, of any shapes, in single precision at least."""
    return [single(x.detach()).requires_grad_() for x in tensors]


def write_gradients(result: Tensor, leaves: Sequence[Tensor], grad_output: Tensor, targets: Sequence[Tensor]) -> None:
    """Write the gradient of each leaf into its target; a leaf that the result does not use leaves its target as it is.

    Args:
        result: computed from the leaves under `torch.enable_grad`.
        grad_output: of the shape of `result`.
        targets: one for each leaf, of its shape.
    """
    grads = torch.autograd.grad(result, leaves, grad_output.to(result.dtype), allow_unused=True)
    for target, grad in zip(targets, grads, strict=True):
        if grad is not None:
            target.copy_(grad)
