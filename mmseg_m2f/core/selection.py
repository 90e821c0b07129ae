"""Which queries become results, and of which class: the part of post-processing that needs no pixels.

Nothing is read back from the device.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: Panoptic maps hold class + this times the instance number, as mmdet's do.
INSTANCE_OFFSET = 1000


#: Divides probabilities that are sigmoids before they compete in a softmax (Mask DINO).
_TEMPERATURE = 0.06
#: A logit that decides a softmax.
_DECISIVE = 1e4


def class_probs_of(class_logits: Float[Tensor, "B Q K1"], class_activation: str) -> Float[Tensor, "B Q K"]:
    """Probabilities of the classes: by a "softmax" with "no object" last, or by a "sigmoid" of each of K logits."""
    return class_logits.sigmoid() if class_activation == "sigmoid" else class_logits.softmax(-1)[..., :-1]


def vote_logits(
    class_logits: Float[Tensor, "B Q K1"], class_activation: str, *, object_threshold: float = 0.0
) -> Float[Tensor, "B Q K2"]:
    """Logits whose softmax, with "no object" last, says how the votes of a query are shared among the classes.

    Those of a "softmax" are themselves. Of sigmoids σ each query votes with a total of 1, `softmax(σ / 0.06)`, or for
    "no object" if no σ exceeds the threshold (arXiv 2206.02777, as released).
    """
    if class_activation == "softmax":
        return class_logits
    probs = class_logits.float().sigmoid()
    is_object = probs.amax(-1, keepdim=True) > object_threshold
    return torch.cat([probs / _TEMPERATURE, torch.where(is_object, -_DECISIVE, _DECISIVE)], -1)


def class_votes(probs: Float[Tensor, "Q K1"], class_activation: str) -> Float[Tensor, "Q K"]:
    """How the vote of a query is shared among the classes, from class probabilities with "no object" last."""
    if class_activation == "softmax":
        return probs[:, :-1]
    return vote_logits(probs[None, :, :-1].logit(), class_activation)[0].softmax(-1)[:, :-1]


def best_pairs(
    class_logits: Float[Tensor, "B Q K1"],
    is_thing: Bool[Tensor, "K"],
    *,
    class_activation: str = "softmax",
    max_per_image: int,
    things_first: bool,
    one_class_per_query: bool,
) -> tuple[Float[Tensor, "B N"], Int[Tensor, "B N"], Int[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Class probabilities, classes and queries of the best pairs of query and class, in no particular order.

    The last result says which pairs count: those of a thing class. N depends on the arguments alone. The arguments are
    those of `results.top_instances`.
    """
    probs = class_probs_of(class_logits, class_activation)
    num_classes = len(is_thing)
    if things_first:
        probs = probs.masked_fill(~is_thing, -1.0)
    if one_class_per_query:
        best_class = torch.zeros_like(probs, dtype=torch.bool).scatter_(2, probs.argmax(2, keepdim=True), True)
        probs = probs.masked_fill(~best_class, -1.0)
    flat = probs.flatten(1)
    best, index = flat.topk(min(max_per_image, flat.shape[1]), sorted=False)
    labels, queries = index % num_classes, index // num_classes
    return best, labels, queries, is_thing[labels] & (best >= 0)


def confident_queries(
    class_logits: Float[Tensor, "B Q K1"], object_threshold: float
) -> tuple[Float[Tensor, "B Q"], Int[Tensor, "B Q"], Bool[Tensor, "B Q"]]:
    """Probability and number of each query's best class, and whether it is a class above the threshold."""
    scores, labels = class_logits.softmax(-1).max(-1)
    return scores, labels, (labels != class_logits.shape[-1] - 1) & (scores > object_threshold)


def segment_ids(
    labels: Int[Tensor, "B N"],
    is_thing: Bool[Tensor, "K"],
    *,
    won: Int[Tensor, "B N"],
    own: Int[Tensor, "B N"],
    overlap_threshold: float,
    is_confident: Bool[Tensor, "B N"] | None = None,
) -> Int[Tensor, "B N"]:
    """Class + 1000 · instance number of each query, K for one that wins too little of its own mask.

    Things are numbered from 1 in query order; stuff has number 0.

    Args:
        won: pixels where the query beats the others.
        own: pixels of its own mask.
        is_confident: queries where this is False get K; by default all count.
    """
    # In float64: 4 of 5 pixels are 0.8 of them, whatever float32 makes of it.
    accepted = (won > 0) & (own > 0) & (won.double() / own >= overlap_threshold)
    if is_confident is not None:
        accepted &= is_confident
    things = is_thing[labels.clamp(max=len(is_thing) - 1)]
    number = (accepted & things).cumsum(1) * things
    return torch.where(accepted, labels + INSTANCE_OFFSET * number, len(is_thing))


def kept_first(kept: Bool[Tensor, "B N"]) -> list[Int[Tensor, "n"]]:
    """For each image, the numbers of what is kept; reads back once for the whole batch."""
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    return [numbers[:count] for numbers, count in zip(order, kept.sum(1).tolist(), strict=True)]


def survives_nms(
    masks: Bool[Tensor, "B N H W"], labels: Int[Tensor, "B N"], scores: Float[Tensor, "B N"], threshold: float
) -> Bool[Tensor, "B N"]:
    """Greedy non-maximum suppression by mask IoU within each class.

    An object goes if its mask has an IoU above the threshold with a better one of its class that stays. Takes three
    operators per object, whatever the number of images.
    """
    images, num_objects = labels.shape
    overlap = torch.zeros(images, num_objects, num_objects, device=masks.device)
    for pixels in masks.flatten(2).split(2**16, 2):  # as numbers, all of large masks would take gigabytes
        numbers = pixels.float()
        overlap += numbers @ numbers.mT
    areas = overlap.diagonal(dim1=1, dim2=2)
    iou = overlap / (areas[:, :, None] + areas[:, None] - overlap).clamp(min=1)
    rivals = (iou > threshold) & (labels[:, :, None] == labels[:, None])
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranked = rivals.gather(1, order.unsqueeze(2).expand_as(rivals)).gather(2, order.unsqueeze(1).expand_as(rivals))
    survives = torch.ones_like(labels, dtype=torch.bool)
    for index in range(num_objects - 1):
        worse = slice(index + 1, None)
        survives[:, worse] &= ~(ranked[:, index, worse] & survives[:, index : index + 1])
    return torch.empty_like(survives).scatter_(1, order, survives)


def append_unrecognised(ids: Int[Tensor, "B N"], num_classes: int) -> Int[Tensor, "B N+1"]:
    """A table of ids whose last entry, K, stands for pixels where nothing was recognised."""
    return F.pad(ids, (0, 1), value=num_classes)
