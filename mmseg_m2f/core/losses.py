"""Losses of class logits, mask logits and boxes (arXiv 2112.01527, 3.3; 2107.06278, 3.2; 2005.12872, 3.1).

A mask m is compared with logits x at P points of validity weight v in [0, 1]; `masks` are already v · m, so that void
points (v = 0) add nothing. p = sigmoid(x).
"""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.boxes import generalized_iou, to_corners


def class_loss(
    class_logits: Float[Tensor, "L N K1"],
    classes: Int[Tensor, "L N"],
    class_weight: Float[Tensor, "K1"],
    *,
    normalizer: Float[Tensor, "L"] | None = None,
) -> Float[Tensor, "L"]:
    """Cross-entropy of each layer, weighted by the target class and divided by `normalizer`.

    Without one, it is divided by the sum of those weights; 0 where there is no query.
    """
    nll = F.cross_entropy(class_logits.flatten(0, 1).float(), classes.flatten(), reduction="none")
    weight = class_weight[classes]
    divisor = (weight.sum(-1) if normalizer is None else normalizer).clamp(min=1e-12)
    return (nll.view_as(weight) * weight).sum(-1) / divisor


def class_focal_loss(
    class_logits: Float[Tensor, "L N K"], classes: Int[Tensor, "L N"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "L"]:
    """Focal loss (arXiv 1708.02002) of each layer: the sum over queries and classes, of which each is a yes or no.

    Args:
        classes: K where a query is of no class.
    """
    num_classes = class_logits.shape[-1]
    yes, no = focal_terms(class_logits.float(), alpha=alpha, gamma=gamma)
    is_class = F.one_hot(classes, num_classes + 1)[..., :-1].bool()
    return yes.where(is_class, no).sum((-2, -1))


def mask_bce_loss(
    logits: Float[Tensor, "N P"], masks: Float[Tensor, "N P"], validity: Float[Tensor, "N P"]
) -> Float[Tensor, "N"]:
    """Σ v · (softplus(x) - m · x) / max(Σ v, 1): binary cross-entropy of each mask; 0 where all is void."""
    # m·softplus(-x) + (1-m)·softplus(x) = softplus(x) - m·x
    entropy = validity * F.softplus(logits) - masks * logits
    return entropy.sum(-1) / validity.sum(-1).clamp(min=1)


def mask_dice_loss(
    logits: Float[Tensor, "N P"],
    masks: Float[Tensor, "N P"],
    validity: Float[Tensor, "N P"],
    *,
    smooth: float = 1.0,
) -> Float[Tensor, "N"]:
    """1 - (2 Σ v·p·m + s) / (Σ v·p + Σ v·m + s) of each mask, with s = `smooth`."""
    probs = logits.sigmoid()
    overlap = (probs * masks).sum(-1)
    total = (probs * validity).sum(-1) + masks.sum(-1)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def mask_focal_loss(
    logits: Float[Tensor, "N P"],
    masks: Float[Tensor, "N P"],
    validity: Float[Tensor, "N P"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, "N"]:
    """Focal loss (arXiv 1708.02002) of each mask, averaged with the validity weights; `alpha` weighs the inside."""
    inside, outside = focal_terms(logits, alpha=alpha, gamma=gamma)
    return (masks * inside + (validity - masks) * outside).sum(-1) / validity.sum(-1).clamp(min=1)


def box_l1_loss(predicted: Float[Tensor, "N 4"], true: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
    """Sum of the absolute differences of the four numbers of two boxes."""
    return (predicted - true).abs().sum(-1)


def box_giou_loss(predicted: Float[Tensor, "N 4"], true: Float[Tensor, "N 4"]) -> Float[Tensor, "N"]:
    """One minus the generalized IoU (arXiv 1902.09630) of boxes given as centre, width and height; in [0, 2]."""
    return 1 - generalized_iou(to_corners(predicted), to_corners(true))


def focal_terms(logits: Tensor, *, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """What each logit costs where the mask is 1, and where it is 0."""
    probs = logits.sigmoid()
    inside = alpha * (1 - probs).pow(gamma) * F.softplus(-logits)
    outside = (1 - alpha) * probs.pow(gamma) * F.softplus(logits)
    return inside, outside
