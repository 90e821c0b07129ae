"""Which queries answer, and as what: the part of post-processing that needs no pixels."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Panoptic maps hold class + this times the instance number, as mmdet's do.
INSTANCE_OFFSET = 1000


def best_pairs(
    class_logits: Float[Tensor, "Q K1"],
    is_thing: Bool[Tensor, "K"],
    *,
    max_per_image: int,
    things_first: bool,
    one_class_per_query: bool,
) -> tuple[Float[Tensor, "N"], Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Class probabilities, classes and queries of the best pairs of query and thing class, in no particular order.

    The arguments are those of `postprocess.top_instances`.
    """
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
    return best[wanted], labels[wanted], queries[wanted]


def sure_queries(
    class_logits: Float[Tensor, "Q K1"], object_threshold: float
) -> tuple[Float[Tensor, "N"], Int[Tensor, "N"], Int[Tensor, "N"]]:
    """Class probabilities, classes and queries of those surer than the threshold of a class, in query order."""
    scores, labels = class_logits.softmax(-1).max(-1)
    kept = (labels != class_logits.shape[1] - 1) & (scores > object_threshold)
    return scores[kept], labels[kept], kept.nonzero().squeeze(1)


def segment_ids(
    labels: Int[Tensor, "N"],
    is_thing: Bool[Tensor, "K"],
    *,
    won: Int[Tensor, "N"],
    own: Int[Tensor, "N"],
    overlap_threshold: float,
) -> Int[Tensor, "N"]:
    """Class + 1000 · instance number of each query, K for one that wins too little of its own mask.

    Things are numbered from 1 in query order; stuff has number 0.

    Args:
        won: pixels where the query beats the others.
        own: pixels of its own mask.
    """
    # In float64: 4 of 5 pixels are 0.8 of them, whatever float32 makes of it.
    accepted = (won > 0) & (own > 0) & (won.double() / own >= overlap_threshold)
    things = is_thing[labels]
    number = (accepted & things).cumsum(0) * things
    return torch.where(accepted, labels + INSTANCE_OFFSET * number, len(is_thing))
