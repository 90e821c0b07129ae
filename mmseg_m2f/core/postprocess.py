"""From the last prediction to maps, segments and instances (arXiv 2107.06278, section 3.4; 2112.01527, 4.1)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def semantic_scores(
    class_logits: Float[Tensor, "B Q K1"], mask_logits: Float[Tensor, "B Q H W"]
) -> Float[Tensor, "B K H W"]:
    """Per-pixel class scores: how much each query votes for a class times where it lies.

    In [0, Q] and not normalised over K: neither logits nor probabilities. A pixel that no query covers has
    scores near zero.
    """
    class_probs = class_logits.softmax(-1)[..., :-1]  # drop "no object"
    return torch.einsum("bqk,bqhw->bkhw", class_probs, mask_logits.sigmoid())


def resize_maps(maps: Float[Tensor, "B C _ _"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Bilinear, corners not aligned, no antialiasing; the maps themselves if the size is right already."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


#: Panoptic maps hold class + this times the instance number, as mmdet's do.
INSTANCE_OFFSET = 1000


class Instances(NamedTuple):
    """Detected objects of one image, in no particular order."""

    scores: Float[Tensor, "N"]
    labels: Int[Tensor, "N"]
    masks: Bool[Tensor, "N H W"]


def panoptic_map(
    class_logits: Float[Tensor, "Q K1"],
    mask_logits: Float[Tensor, "Q H W"],
    is_thing: Bool[Tensor, "K"],
    *,
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    keep_low_pixels: bool = False,
) -> Int[Tensor, "H W"]:
    """The panoptic map of one image: class + 1000 · instance number, K where nothing was recognised.

    Queries surer than `object_threshold` of a class compete for each pixel by score times mask probability. One that
    wins less than `overlap_threshold` of its own mask is dropped. Things are numbered from 1 in query order, stuff
    has number 0 and is one segment per class.

    Args:
        keep_low_pixels: also keep pixels that a query wins with a mask probability below 0.5 (MaskFormer's rule;
            Mask2Former leaves them unrecognised).
    """
    scores, labels = class_logits.softmax(-1).max(-1)
    num_classes = len(is_thing)
    kept = (labels != num_classes) & (scores > object_threshold)
    labels, probs = labels[kept], mask_logits[kept].sigmoid()
    if len(labels) == 0:
        return labels.new_full(mask_logits.shape[1:], num_classes)
    winner = (scores[kept, None, None] * probs).argmax(0)
    certain = probs >= 0.5
    won = torch.bincount(winner.flatten(), minlength=len(labels))
    own = certain.sum((1, 2))
    # In float64: 4 of 5 pixels are 0.8 of them, whatever float32 makes of it.
    accepted = (won > 0) & (own > 0) & (won.double() / own >= overlap_threshold)
    things = is_thing[labels]
    number = (accepted & things).cumsum(0) * things
    ids = torch.where(accepted, labels + INSTANCE_OFFSET * number, num_classes)
    if keep_low_pixels:
        return ids[winner]
    return ids[winner].where(certain.gather(0, winner.unsqueeze(0)).squeeze(0), num_classes)


def top_instances(
    class_logits: Float[Tensor, "Q K1"],
    mask_logits: Float[Tensor, "Q H W"],
    is_thing: Bool[Tensor, "K"],
    *,
    max_per_image: int = 100,
    things_first: bool = True,
) -> Instances:
    """The best pairs of query and thing class; a query may appear with several classes.

    The score is the class probability times the mean mask probability inside the mask.

    Args:
        max_per_image: how many pairs; fewer where there are fewer.
        things_first: spend them on things alone. The official release and mmdet also let stuff compete and drop it
            afterwards.
    """
    probs = class_logits.softmax(-1)[:, :-1]
    num_classes = len(is_thing)
    if things_first:
        probs = probs.masked_fill(~is_thing, -1.0)
    best, index = probs.flatten().topk(min(max_per_image, probs.numel()), sorted=False)
    labels, queries = index % num_classes, index // num_classes
    wanted = is_thing[labels]
    best, labels, logits = best[wanted], labels[wanted], mask_logits[queries[wanted]]
    masks = logits > 0
    inside = (logits.sigmoid() * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6)
    return Instances(best * inside, labels, masks)


def tight_boxes(masks: Bool[Tensor, "N H W"]) -> Float[Tensor, "N 4"]:
    """x1 y1 x2 y2 of each mask in pixels, the last column and row included; zeros for an empty mask."""
    _, height, width = masks.shape
    columns, rows = masks.any(1), masks.any(2)
    left, top = columns.float().argmax(1), rows.float().argmax(1)
    right = width - columns.flip(1).float().argmax(1)
    bottom = height - rows.flip(1).float().argmax(1)
    boxes = torch.stack([left, top, right, bottom], 1).float()
    return boxes * columns.any(1, keepdim=True)
