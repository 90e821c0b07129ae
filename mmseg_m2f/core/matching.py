"""Costs of pairing queries with segments, and the solver (arXiv 2112.01527, section 3.3; 2005.12872, 3.1).

Masks are compared at P points of an image with validity weights in [0, 1]. `masks` are the segments' values there,
already multiplied by `validity` (see `core.targets.read_segments`), so that void points add nothing to any cost. Every
cost equals the loss of the same name in `core.losses`, for all pairs of queries and segments.
"""

import math

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmseg_m2f.core.boxes import generalized_iou, to_corners
from mmseg_m2f.core.losses import focal_terms
from mmseg_m2f.structures import MaskSums


def class_cost(class_logits: Float[Tensor, "*B Q K1"], labels: Int[Tensor, "*B G"]) -> Float[Tensor, "*B Q G"]:
    """Minus the probability that a query gives to a segment's class; in [-1, 0]."""
    probs = class_logits.float().softmax(-1)
    return -probs.gather(-1, labels.unsqueeze(-2).expand(*probs.shape[:-1], -1))


def class_focal_cost(
    class_logits: Float[Tensor, "*B Q K1"], labels: Int[Tensor, "*B G"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*B Q G"]:
    """What it adds to the focal loss (arXiv 1708.02002) that a query is of a segment's class and not of none.

    The published cost adds 1e-8 to the arguments of its logarithms.
    """
    yes, no = focal_terms(class_logits.float(), alpha=alpha, gamma=gamma)
    return (yes - no).gather(-1, labels.unsqueeze(-2).expand(*class_logits.shape[:-1], -1))


def mask_sums(
    logits: Float[Tensor, "*B Q P"], masks: Float[Tensor, "*B G P"], validity: Float[Tensor, "*B P"]
) -> MaskSums:
    """What `mask_bce_cost` and `mask_dice_cost` need of all pairs of queries and segments."""
    # With one axis of batches a product is one operator.
    batch = math.prod(logits.shape[:-2])
    rows = logits.reshape(batch, *logits.shape[-2:])
    by_point = masks.reshape(batch, *masks.shape[-2:]).mT
    weights = validity.reshape(batch, logits.shape[-1], 1)
    probs = rows.sigmoid()
    pairs = *logits.shape[:-1], masks.shape[-2]
    return MaskSums(
        rows.bmm(by_point).view(pairs),
        probs.bmm(by_point).view(pairs),
        F.softplus(rows).bmm(weights).view(pairs[:-1]),
        probs.bmm(weights).view(pairs[:-1]),
        masks.sum(-1),
        validity.sum(-1),
    )


def mask_bce_cost(sums: MaskSums) -> Float[Tensor, "*B Q G"]:
    """Binary cross-entropy, averaged over the points."""
    # m·softplus(-x) + (1-m)·softplus(x) = softplus(x) - m·x
    return (sums.softplus.unsqueeze(-1) - sums.logits_in_masks) / sums.validity.clamp(min=1)[..., None, None]


def mask_dice_cost(sums: MaskSums, *, smooth: float = 1.0) -> Float[Tensor, "*B Q G"]:
    """One minus the dice coefficient over the points; `smooth` is added above and below."""
    total = sums.probs.unsqueeze(-1) + sums.masks.unsqueeze(-2)
    return 1 - (2 * sums.probs_in_masks + smooth) / (total + smooth)


def mask_focal_cost(
    logits: Float[Tensor, "*B Q P"],
    masks: Float[Tensor, "*B G P"],
    validity: Float[Tensor, "*B P"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, "*B Q G"]:
    """Focal loss (arXiv 1708.02002), averaged over the points; `alpha` weighs the inside of a mask."""
    total = validity.sum(-1, keepdim=True).clamp(min=1)
    inside, outside = focal_terms(logits, alpha=alpha, gamma=gamma)
    everywhere = outside @ (validity / total).unsqueeze(-1)  # ... Q 1
    return everywhere + (inside - outside) @ (masks / total.unsqueeze(-1)).mT


def box_l1_cost(predicted: Float[Tensor, "*B Q 4"], true: Float[Tensor, "*B G 4"]) -> Float[Tensor, "*B Q G"]:
    """Sum of the absolute differences of the four numbers of each pair of boxes."""
    return (predicted.unsqueeze(-2) - true.unsqueeze(-3)).abs().sum(-1)


def box_giou_cost(predicted: Float[Tensor, "*B Q 4"], true: Float[Tensor, "*B G 4"]) -> Float[Tensor, "*B Q G"]:
    """Minus the generalized IoU of each pair of boxes, given as centre, width and height; in [-1, 1]."""
    return -generalized_iou(to_corners(predicted).unsqueeze(-2), to_corners(true).unsqueeze(-3))


def solve_assignment(costs: Float[np.ndarray, "Q G"]) -> tuple[np.ndarray, np.ndarray]:
    """The min(Q, G) pairs (query, segment) of least total cost, queries ascending."""
    return linear_sum_assignment(costs)
