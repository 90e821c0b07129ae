"""One prediction from several views of an image: queries are matched and averaged in probability space.

Two views: query q of one and r of the other have the similarity S = dice(mask_q, mask_r) · Σ_k p_q(k) p_r(k), over the
classes without "no object". An optimal assignment of all queries maximises ΣS. Class probabilities of a pair are
averaged. So are mask probabilities and boxes, each weighted by 1 - p("no object"): a query that found nothing has no
say in a mask or box. More views: views 2i and 2i + 1 are merged first, then the results one after another, as means
over all views.

Queries are ordered by their best class probability, then by area, so that nothing depends on the order of the two views
of a pair: if these are an image and its mirror image, merging commutes with mirroring, bit for bit (boxes: to
rounding).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_LEAST_WEIGHT = 1e-6


class QueryProbs(NamedTuple):
    """Probabilities of one image's queries; the last class is "no object". Boxes are x1 y1 x2 y2 in pixels."""

    class_probs: Float[Tensor, "Q K1"]
    mask_probs: Float[Tensor, "Q H W"]
    boxes: Float[Tensor, "Q 4"] | None = None


class _Sums(NamedTuple):
    """Sums over `num_views` views; masks and boxes are weighted, and `weights` the sums of their weights."""

    class_probs: Float[Tensor, "Q K1"]
    masks: Float[Tensor, "Q H W"]
    boxes: Float[Tensor, "Q 4"] | None
    weights: Float[Tensor, "Q"]
    num_views: int

    def of(self, queries: Int[Tensor, "Q"]) -> "_Sums":
        """Those of some queries, in their order."""
        boxes = None if self.boxes is None else self.boxes[queries]
        return _Sums(self.class_probs[queries], self.masks[queries], boxes, self.weights[queries], self.num_views)


def merge_queries(views: Sequence[QueryProbs]) -> QueryProbs:
    """The mean over the views of an image; see the top of the module for the rules.

    Args:
        views: at least one; all with the same number of queries and the same size, flips undone.
    """
    sums = [_ordered(_sums(view)) for view in views]
    pairs = [_add(*sums[first : first + 2]) for first in range(0, len(sums), 2)]
    total = pairs[0]
    for other in pairs[1:]:
        total = _add(total, other)
    return _mean(total)


def _sums(view: QueryProbs) -> _Sums:
    weights = (1 - view.class_probs[:, -1]).clamp(min=_LEAST_WEIGHT)
    boxes = None if view.boxes is None else view.boxes * weights[:, None]
    return _Sums(view.class_probs, view.mask_probs * weights[:, None, None], boxes, weights, 1)


def _mean(sums: _Sums) -> QueryProbs:
    boxes = None if sums.boxes is None else sums.boxes / sums.weights[:, None]
    return QueryProbs(sums.class_probs / sums.num_views, sums.masks / sums.weights[:, None, None], boxes)


def _add(first: _Sums, second: _Sums | None = None) -> _Sums:
    """The sums of matched queries; a + b is the same as b + a."""
    if second is None:
        return first
    rows, columns = (torch.from_numpy(index) for index in linear_sum_assignment(_similarity(first, second), True))
    one, other = first.of(rows.to(first.weights.device)), second.of(columns.to(first.weights.device))
    return _ordered(
        _Sums(
            one.class_probs + other.class_probs,
            one.masks + other.masks,
            None if one.boxes is None or other.boxes is None else one.boxes + other.boxes,
            one.weights + other.weights,
            one.num_views + other.num_views,
        )
    )


def _similarity(first: _Sums, second: _Sums) -> Float[Tensor, "Q Q"]:
    (p, masks_p, _), (q, masks_q, _) = _mean(first), _mean(second)
    flat_p, flat_q = masks_p.flatten(1), masks_q.flatten(1)
    dice = 2 * (flat_p @ flat_q.T) / (flat_p.sum(1)[:, None] + flat_q.sum(1)).clamp(min=1e-6)
    return (dice * (p[:, :-1] @ q[:, :-1].T)).cpu()


def _ordered(sums: _Sums) -> _Sums:
    """By best class probability, then by area; both are sums that do not depend on the order of the pixels."""
    best = sums.class_probs[:, :-1].max(1).values
    area = (sums.masks > sums.weights[:, None, None] / 2).sum((1, 2))
    by_area = area.argsort(descending=True, stable=True)
    return sums.of(by_area[best[by_area].argsort(descending=True, stable=True)])
