"""The focal loss (arXiv 1708.02002) with sigmoid and with softmax, and its gradients."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmseg_m2f.layers.mmcv_operators.weighted_rows import single


def sigmoid_focal_loss_forward(
    input: Float[Tensor, "N K"],
    target: Int[Tensor, "N"],
    weight: Float[Tensor, "..."],
    output: Float[Tensor, "N K"],
    gamma: float,
    alpha: float,
) -> None:
    """Write `-α (1 - p)^γ log p` for the target class and `-(1 - α) p^γ log(1 - p)` for all others; K is background.

    Args:
        weight: of each target class, or empty.
    """
    logits, is_target = single(input), _one_hot(target, input.shape[1])
    p = logits.sigmoid()
    positive = -alpha * (1 - p) ** gamma * F.logsigmoid(logits)
    negative = -(1 - alpha) * p**gamma * F.logsigmoid(-logits)
    output.copy_(positive.where(is_target, negative) * _of_target(weight, target))


def sigmoid_focal_loss_backward(
    input: Float[Tensor, "N K"],
    target: Int[Tensor, "N"],
    weight: Float[Tensor, "..."],
    grad_input: Float[Tensor, "N K"],
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative with respect to each logit."""
    logits, is_target = single(input), _one_hot(target, input.shape[1])
    p = logits.sigmoid()
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(logits))
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-logits) - p)
    grad_input.copy_(positive.where(is_target, negative) * _of_target(weight, target))


def softmax_focal_loss_forward(
    input: Float[Tensor, "N K"],
    target: Int[Tensor, "N"],
    weight: Float[Tensor, "..."],
    output: Float[Tensor, "N"],
    gamma: float,
    alpha: float,
) -> None:
    """Write `-α (1 - p)^γ log p` with the probability p of the target class, 0 for negative targets.

    Args:
        input: the softmax.
    """
    p = _of_class(single(input), target)
    loss = -alpha * (1 - p) ** gamma * _log(p)
    output.copy_(loss.where(target >= 0, 0.0) * _of_target(weight, target)[:, 0])


def softmax_focal_loss_backward(
    input: Float[Tensor, "N K"],
    target: Int[Tensor, "N"],
    weight: Float[Tensor, "..."],
    buff: Float[Tensor, "N"],
    grad_input: Float[Tensor, "N K"],
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative with respect to each logit; `buff` is not used."""
    probs = single(input)
    p = _of_class(probs, target)
    slope = alpha * (gamma * (1 - p) ** (gamma - 1) * p * _log(p) - (1 - p) ** gamma)
    slope = slope.where(target >= 0, 0.0)[:, None] * _of_target(weight, target)
    grad_input.copy_(slope * (_one_hot(target, probs.shape[1]).to(probs.dtype) - probs))


def _one_hot(target: Int[Tensor, "N"], num_classes: int) -> Tensor:
    return target[:, None] == torch.arange(num_classes, device=target.device)


def _of_class(probs: Float[Tensor, "N K"], target: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    return probs.gather(1, target.clamp(min=0)[:, None])[:, 0]


def _of_target(weight: Tensor, target: Int[Tensor, "N"]) -> Float[Tensor, "N 1"]:
    """The weight of each target's class; 1 without weights, and for background."""
    if weight.numel() == 0:
        return torch.ones(len(target), 1, device=target.device)
    known = (target >= 0) & (target < len(weight))
    return single(weight)[target.clamp(0, len(weight) - 1)].where(known, 1.0)[:, None]


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()
