"""From the last prediction to maps, segments and instances (arXiv 2107.06278, section 3.4; 2112.01527, 4.1).

Definitions on mask logits at the size of the result, and DETR's results. `core.results` computes the others in strips.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.core.boxes import to_corners
from mmseg_m2f.core.selection import INSTANCE_OFFSET
from mmseg_m2f.core.sizes import is_known_equal


def semantic_scores(
    class_logits: Float[Tensor, "B Q K1"], mask_logits: Float[Tensor, "B Q H W"]
) -> Float[Tensor, "B K H W"]:
    """Per-pixel class scores: how much each query votes for a class times where it lies.

    In [0, Q] and not normalised over K: neither logits nor probabilities. A pixel that no query covers has
    scores near zero.
    """
    class_probs = class_logits.softmax(-1)[..., :-1]  # drop "no object"
    return torch.einsum("bqk,bqhw->bkhw", class_probs, mask_logits.sigmoid())


def resize_maps(maps: Float[Tensor, "B C h w"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Bilinear, corners not aligned, no antialiasing; the maps themselves if the size is right already."""
    if is_known_equal(maps.shape[-2:], size):
        return maps
    if maps.device.type == "cuda" and maps.shape[1] > 1:
        # PyTorch's kernel for channels first loops over the channels: a fifth of the speed.
        maps = maps.contiguous(memory_format=torch.channels_last)
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


class Instances(NamedTuple):
    """Detected objects of one image, in no particular order.

    `boxes` are x1 y1 x2 y2 in pixels. `mask_probs` are in [0, 1]; the masks are where they exceed 0.5.
    """

    scores: Float[Tensor, "N"]
    labels: Int[Tensor, "N"]
    boxes: Float[Tensor, "N 4"]
    masks: Bool[Tensor, "N H W"] | None = None
    mask_probs: Float[Tensor, "N H W"] | None = None


def detr_panoptic_map(
    class_logits: Float[Tensor, "Q K1"],
    mask_logits: Float[Tensor, "Q H W"],
    is_thing: Bool[Tensor, "K"],
    *,
    size: tuple[int, int],
    object_threshold: float = 0.85,
    min_area: int = 4,
    merge_stuff: bool = False,
) -> Int[Tensor, "H1 W1"]:
    """DETR's panoptic map (arXiv 2005.12872, section 4.2), at `size`: class + 1000 · instance number.

    Each pixel goes to the highest mask logit among the queries that score more than `object_threshold`, whatever their
    scores. Queries with at most `min_area` pixels are removed, and the others compete again until all are
    larger. K everywhere where no query is left.

    Args:
        mask_logits: at the size of the processed image, where the queries compete.
        merge_stuff: unite the queries of a stuff class. The authors' code means to, but then removes the united ones
            as empty and lets the others compete for their pixels; of each stuff class the first query survives.
    """
    scores, labels = class_logits.softmax(-1).max(-1)
    num_classes = len(is_thing)
    kept = ((labels != num_classes) & (scores > object_threshold)).nonzero().squeeze(1)
    same_stuff = (labels[:, None] == labels) & ~is_thing[labels.clamp(max=num_classes - 1)]
    merging = True
    while len(kept):
        winner = mask_logits[kept].argmax(0)
        if merging:
            first = same_stuff[kept][:, kept].int().argmax(1)  # of the same stuff class; 0 where there is none
            winner = torch.where(is_thing[labels[kept]], torch.arange(len(kept), device=kept.device), first)[winner]
        winner = F.interpolate(winner[None, None].float(), size, mode="nearest-exact")[0, 0].long()
        large = torch.bincount(winner.flatten(), minlength=len(kept)) > min_area
        if merge_stuff:  # united queries stay or go with the first
            large = torch.where(is_thing[labels[kept]], large, large[first])
        if large.all():
            things = is_thing[labels[kept]]
            return (labels[kept] + INSTANCE_OFFSET * things.cumsum(0) * things)[winner]
        kept = kept[large]
        merging = merge_stuff
    return labels.new_full(size, num_classes)


def top_boxes(
    class_logits: Float[Tensor, "Q K1"],
    boxes: Float[Tensor, "Q 4"],
    is_thing: Bool[Tensor, "K"],
    *,
    size: tuple[int, int],
    mask_logits: Float[Tensor, "Q H W"] | None = None,
    max_per_image: int = 100,
    score_threshold: float = 0.0,
    soft_masks: bool = False,
) -> Instances:
    """Each query with its best class, best first (arXiv 2005.12872, section 3): no suppression, "no object" or not.

    Args:
        boxes: centre x, centre y, width, height, as fractions of the image; cut to it.
        size: of the image, in pixels.
        mask_logits: at that size, if there are masks.
        max_per_image: how many of the thing classes; fewer where there are fewer.
        score_threshold: leave out what scores less.
        soft_masks: also give the mask probabilities.
    """
    scores, labels = class_logits.softmax(-1)[:, :-1].max(-1)
    things = (is_thing[labels] & (scores >= score_threshold)).nonzero().squeeze(1)
    best, order = scores[things].topk(min(max_per_image, len(things)))
    queries = things[order]
    height, width = size
    corners = to_corners(boxes[queries]) * boxes.new_tensor([width, height, width, height])
    corners = torch.stack([corners[:, 0::2].clamp(0, width), corners[:, 1::2].clamp(0, height)], -1).flatten(1)
    if mask_logits is None:
        return Instances(best, labels[queries], corners)
    logits = mask_logits[queries]
    return Instances(best, labels[queries], corners, logits > 0, logits.sigmoid() if soft_masks else None)


def tight_boxes(masks: Bool[Tensor, "N H W"]) -> Float[Tensor, "N 4"]:
    """x1 y1 x2 y2 of each mask in pixels, the last column and row included; zeros for an empty mask."""
    _, height, width = masks.shape
    columns, rows = masks.any(1), masks.any(2)
    left, top = columns.float().argmax(1), rows.float().argmax(1)
    right = width - columns.flip(1).float().argmax(1)
    bottom = height - rows.flip(1).float().argmax(1)
    boxes = torch.stack([left, top, right, bottom], 1).float()
    return boxes * columns.any(1, keepdim=True)
