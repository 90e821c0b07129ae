"""Costs of pairing queries with segments, and the solver (arXiv 2112.01527, section 3.3; 2005.12872, 3.1).

Masks are compared at points. `point_masks` are the segments' values at the points, already multiplied by
`point_known` (see `core.targets.read_segments`), so a void point adds nothing to any cost.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def class_cost(class_logits: Float[Tensor, "*B Q K1"], labels: Int[Tensor, "*B G"]) -> Float[Tensor, "*B Q G"]:
    """Minus the probability that a query gives to a segment's class; in [-1, 0]."""
    probs = class_logits.float().softmax(-1)
    return -probs.gather(-1, labels.unsqueeze(-2).expand(*probs.shape[:-1], -1))


def mask_bce_cost(
    point_logits: Float[Tensor, "*B Q P"],
    point_masks: Float[Tensor, "*B G P"],
    point_known: Float[Tensor, "*B P"],
) -> Float[Tensor, "*B Q G"]:
    """Binary cross-entropy, averaged over the known points.

    Divided before the product, so that half-precision sums cannot overflow.
    """
    total = point_known.sum(-1, keepdim=True).clamp(min=1)
    # m·softplus(-x) + (1-m)·softplus(x) = softplus(x) - m·x
    negative = torch.einsum("...qp,...p->...q", F.softplus(point_logits), point_known / total)
    return negative.unsqueeze(-1) - torch.einsum("...qp,...gp->...qg", point_logits, point_masks / total.unsqueeze(-1))


def mask_dice_cost(
    point_logits: Float[Tensor, "*B Q P"],
    point_masks: Float[Tensor, "*B G P"],
    point_known: Float[Tensor, "*B P"],
    *,
    smooth: float = 1.0,
) -> Float[Tensor, "*B Q G"]:
    """One minus the dice coefficient over the known points; `smooth` is added above and below."""
    probs = point_logits.sigmoid()
    overlap = torch.einsum("...qp,...gp->...qg", probs, point_masks)
    covered = torch.einsum("...qp,...p->...q", probs, point_known)
    total = covered.unsqueeze(-1) + point_masks.sum(-1).unsqueeze(-2)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def solve_assignment(costs: Float[np.ndarray, "Q G"]) -> tuple[np.ndarray, np.ndarray]:
    """The min(Q, G) pairs (query, segment) of least total cost, queries ascending."""
    return linear_sum_assignment(costs)
