"""Non-maximum suppression: greedy, soft, and with the suppressed boxes listed. Boxes are x1, y1, x2, y2 in pixels.

Greedy suppression decides blocks of boxes, best first: boxes that a kept box of an earlier block suppresses fall out,
and within a block the rule "kept unless a kept, better one suppresses it" is applied until nothing changes, which ends
with the greedy answer. Soft-NMS (arXiv 1704.04503) picks one box after the other, here in all groups of boxes at once
that cannot overlap each other; classes are such groups after `batched_nms` has moved them apart.

Half precision is computed in single precision: it cannot tell the pixels of a large image from each other.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.compat import has_torchvision_operators
from mmseg_m2f.layers.mmcv_operators.weighted_rows import single

_BLOCK = 1024
_HARD, _LINEAR = 0, 1  # methods of soft-NMS as mmcv numbers them; 2 is the Gaussian


def nms(
    boxes: Float[Tensor, "N 4"], scores: Float[Tensor, "N"], iou_threshold: float, offset: int
) -> Int[Tensor, "kept"]:
    """Indices of the kept boxes, best first; a box falls out if its IoU with a better kept one exceeds the threshold.

    Args:
        offset: added to widths and heights, 0 or 1.
    """
    boxes, scores = single(boxes), single(scores)
    if offset == 0 and has_torchvision_operators():
        return torch.ops.torchvision.nms(boxes, scores, iou_threshold)
    order = scores.sort(descending=True, stable=True).indices
    kept = _greedy(boxes[order], iou_threshold, offset=offset, inclusive=False)
    return order[kept]


def nms_match(dets: Float[Tensor, "N 5"], iou_threshold: float) -> list[list[int]]:
    """For each kept box its index and those of the boxes it suppresses, by score, the last column of `dets`.

    A box falls out if its IoU with a better kept one is at least the threshold; the best such one lists it.
    """
    dets = single(dets)
    order = dets[:, 4].sort(descending=True, stable=True).indices
    boxes = dets[order, :4]
    kept = _greedy(boxes, iou_threshold, offset=0, inclusive=True)
    places = kept.nonzero()[:, 0]
    owner = torch.empty_like(order)
    for start in range(0, len(boxes), _BLOCK):
        hit = _overlaps(boxes[places], boxes[start : start + _BLOCK]) >= iou_threshold
        owner[start : start + _BLOCK] = hit.int().argmax(0)  # the first, hence the best
    owner[places] = torch.arange(len(places), device=owner.device)
    grouped = owner.sort(stable=True).indices
    sizes = owner.bincount(minlength=len(places)).tolist()
    return [group.tolist() for group in order[grouped].split(sizes)]


def softnms(
    boxes: Float[Tensor, "N 4"],
    scores: Float[Tensor, "N"],
    dets: Float[Tensor, "N 5"],
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Int[Tensor, "kept"]:
    """Pick the best box, lower the scores of those that overlap it, and go on; gives indices in order of the picks.

    Boxes whose score falls below `min_score` are dropped. The factors are `1 - IoU` from the threshold on (method 1), 0
    from the threshold on (method 0), or `exp(-IoU² / sigma)` (method 2). `dets` receives boxes and lowered scores.
    """
    corners, current = single(boxes), single(scores).clone()
    if len(corners) == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    group, num_groups = _separate_groups(corners, offset)
    alive = current >= min_score
    alive[current.argmax()] = True  # the first pick is never compared with the minimum
    picked = torch.zeros_like(alive)
    everything = torch.arange(len(current), device=current.device)
    while alive.any():
        open_scores = current.masked_fill(~alive, -torch.inf)
        best = open_scores.new_full((num_groups,), -torch.inf).scatter_reduce_(0, group, open_scores, "amax")
        is_best = alive & (open_scores == best[group])
        first = everything.masked_fill(~is_best, len(current))
        pick = first.new_full((num_groups,), len(current)).scatter_reduce_(0, group, first, "amin")
        chosen = pick[pick < len(current)]
        picked[chosen], alive[chosen] = True, False
        rest = alive.nonzero()[:, 0]
        iou = _aligned_overlaps(corners[pick[group[rest]].clamp_(max=len(current) - 1)], corners[rest], offset)
        factor = _factor(iou, iou_threshold, sigma, method)
        current[rest] *= factor.where(pick[group[rest]] < len(current), 1.0)
        alive[rest] = current[rest] >= min_score
    order = current.masked_fill(~picked, -torch.inf).sort(descending=True, stable=True).indices[: int(picked.sum())]
    dets[: len(order)] = torch.cat([corners[order], current[order, None]], 1).to(dets)
    return order


def bbox_overlaps(
    bboxes1: Float[Tensor, "M 4"],
    bboxes2: Float[Tensor, "N 4"],
    ious: Float[Tensor, "..."],
    mode: int,
    aligned: bool,
    offset: int,
) -> None:
    """Write the IoU (mode 0) or the share of the first box that is covered (mode 1); of pairs if `aligned`."""
    first, second = single(bboxes1), single(bboxes2)
    overlaps = _aligned_overlaps if aligned else _overlaps
    ious.copy_(overlaps(first, second, offset, of_first=mode == 1))


def _greedy(boxes: Float[Tensor, "N 4"], threshold: float, *, offset: int, inclusive: bool) -> Bool[Tensor, "N"]:
    """Which boxes, ordered by score, are kept."""
    kept = boxes.new_zeros(len(boxes), dtype=torch.bool)
    for start in range(0, len(boxes), _BLOCK):
        block = boxes[start : start + _BLOCK]
        earlier = boxes[:start][kept[:start]]
        candidate = ~_exceeds(_overlaps(earlier, block, offset), threshold, inclusive).any(0)
        suppresses = _exceeds(_overlaps(block, block, offset), threshold, inclusive).triu(1)
        state, before = candidate, None
        while before is None or not torch.equal(state, before):
            before = state
            state = candidate & ~(suppresses & state[:, None]).any(0)
        kept[start : start + _BLOCK] = state
    return kept


def _exceeds(iou: Tensor, threshold: float, inclusive: bool) -> Tensor:
    return iou >= threshold if inclusive else iou > threshold


def _overlaps(
    first: Float[Tensor, "M 4"], second: Float[Tensor, "N 4"], offset: int = 0, *, of_first: bool = False
) -> Float[Tensor, "M N"]:
    return _aligned_overlaps(first[:, None], second[None], offset, of_first=of_first)


def _aligned_overlaps(
    first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"], offset: int = 0, *, of_first: bool = False
) -> Float[Tensor, "..."]:
    """Intersection over union, or over the first box."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    common = (high - low + offset).clamp_(min=0).prod(-1)
    area1, area2 = ((box[..., 2:] - box[..., :2] + offset).prod(-1) for box in (first, second))
    return common / (area1 if of_first else area1 + area2 - common)


def _factor(iou: Tensor, threshold: float, sigma: float, method: int) -> Tensor:
    if method in (_HARD, _LINEAR):
        lowered = torch.zeros_like(iou) if method == _HARD else 1 - iou
        return lowered.where(iou >= threshold, torch.ones_like(iou))
    return torch.exp(-(iou**2) / sigma)


def _separate_groups(boxes: Float[Tensor, "N 4"], offset: int) -> tuple[Int[Tensor, "N"], int]:
    """A number for each box; boxes with different numbers lie beside each other along x."""
    left, order = boxes[:, 0].sort()
    reach = (boxes[order, 2] + offset).cummax(0).values
    begins = torch.zeros_like(order)
    begins[1:] = left[1:] >= reach[:-1]
    number = begins.cumsum(0)
    group = torch.empty_like(order)
    group[order] = number
    return group, int(number[-1]) + 1
