"""`core.results` by definition: one image, all mask logits at the size of the result at once."""

import torch
from torch import Tensor

from mmseg_m2f.core.postprocess import Instances, tight_boxes
from mmseg_m2f.core.selection import INSTANCE_OFFSET


def panoptic_map(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    *,
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    keep_low_pixels: bool = False,
) -> Tensor:
    """H W, from class logits Q K1 and mask logits Q H W."""
    scores, labels = class_logits.softmax(-1).max(-1)
    num_classes = len(is_thing)
    kept = (labels != num_classes) & (scores > object_threshold)
    panoptic = torch.full(mask_logits.shape[1:], num_classes)
    if not kept.any():
        return panoptic
    scores, labels, probs = scores[kept], labels[kept], mask_logits[kept].sigmoid()
    winner = (scores[:, None, None] * probs).argmax(0)
    certain = probs >= 0.5
    instances = 0
    for query, label in enumerate(labels.tolist()):
        won, own = (winner == query).sum().item(), certain[query].sum().item()
        if not won or not own or won / own < overlap_threshold:
            continue
        instances += bool(is_thing[label])
        pixels = winner == query
        if not keep_low_pixels:
            pixels &= certain[query]
        panoptic[pixels] = label + INSTANCE_OFFSET * instances * bool(is_thing[label])
    return panoptic


def top_instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    *,
    max_per_image: int = 100,
    things_first: bool = True,
    score_threshold: float = 0.0,
    one_class_per_query: bool = False,
    mask_nms_threshold: float | None = None,
    soft_masks: bool = False,
) -> Instances:
    """From class logits Q K1 and mask logits Q H W."""
    probs = class_logits.softmax(-1)[:, :-1]
    num_classes = len(is_thing)
    if things_first:
        probs = probs.masked_fill(~is_thing, -1.0)
    if one_class_per_query:
        best_class = torch.zeros_like(probs, dtype=torch.bool).scatter_(1, probs.argmax(1, keepdim=True), True)
        probs = probs.masked_fill(~best_class, -1.0)
    best, index = probs.flatten().topk(min(max_per_image, probs.numel()), sorted=False)
    labels, queries = index % num_classes, index // num_classes
    wanted = is_thing[labels] & (best >= 0)
    best, labels, logits = best[wanted], labels[wanted], mask_logits[queries[wanted]]
    masks, mask_probs = logits > 0, logits.sigmoid()
    scores = best * ((mask_probs * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6))
    kept = scores >= score_threshold
    if mask_nms_threshold is not None:
        kept &= survives_nms(masks, labels, scores, mask_nms_threshold)
    masks = masks[kept]
    return Instances(scores[kept], labels[kept], tight_boxes(masks), masks, mask_probs[kept] if soft_masks else None)


def survives_nms(masks: Tensor, labels: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Which of N masks stay: the best of a class first, then those that overlap no better one that stays."""
    stays: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        rivals = [other for other in stays if labels[other] == labels[index]]
        overlaps = [(masks[index] & masks[other]).sum() / (masks[index] | masks[other]).sum() for other in rivals]
        if all(overlap <= threshold for overlap in overlaps):
            stays.append(index)
    return torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, torch.tensor(stays, dtype=torch.long), True)
