"""Losses of class logits and of mask logits read at points (arXiv 2112.01527, section 3.3).

`point_masks` are already multiplied by `point_known`; void points have `point_known` 0 and add nothing.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def class_loss(
    class_logits: Float[Tensor, "L N K1"], classes: Int[Tensor, "L N"], class_weight: Float[Tensor, "K1"]
) -> Float[Tensor, "L"]:
    """Cross-entropy of each layer, weighted by the target class and divided by the sum of those weights."""
    nll = F.cross_entropy(class_logits.flatten(0, 1).float(), classes.flatten(), reduction="none")
    weight = class_weight[classes]
    return (nll.view_as(weight) * weight).sum(-1) / weight.sum(-1)


def mask_bce_loss(
    point_logits: Float[Tensor, "N P"], point_masks: Float[Tensor, "N P"], point_known: Float[Tensor, "N P"]
) -> Float[Tensor, "N"]:
    """Binary cross-entropy of each mask, averaged over its known points; 0 where none is known."""
    # m·softplus(-x) + (1-m)·softplus(x) = softplus(x) - m·x
    entropy = point_known * F.softplus(point_logits) - point_masks * point_logits
    return entropy.sum(-1) / point_known.sum(-1).clamp(min=1)


def mask_dice_loss(
    point_logits: Float[Tensor, "N P"],
    point_masks: Float[Tensor, "N P"],
    point_known: Float[Tensor, "N P"],
    *,
    smooth: float = 1.0,
) -> Float[Tensor, "N"]:
    """One minus the dice coefficient of each mask over its known points; `smooth` is added above and below."""
    probs = point_logits.sigmoid()
    overlap = (probs * point_masks).sum(-1)
    total = (probs * point_known).sum(-1) + point_masks.sum(-1)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def weighted_classes(num_classes: int, no_object_weight: float, class_weight: list[float] | None) -> Tensor:
    """Weights of the K classes (1 unless given) followed by the weight of "no object"."""
    return torch.tensor([*(class_weight or [1.0] * num_classes), no_object_weight])
