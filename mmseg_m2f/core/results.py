"""From the last prediction to label maps, panoptic maps and instances (arXiv 2107.06278, section 3.4; 2112.01527, 4.1).

Mask logits of all queries, or scores of all classes, at the size of a large image take gigabytes. Here they exist for
a strip of rows at a time (`core.strips`), whatever the size of the image. What comes out is the same as from resizing
all mask logits, up to the order in which class scores and mask probabilities are added up: only pixels where two
classes score the same up to rounding can get the other one.

On a CPU reading a number costs nothing: there each image is computed alone, with the queries and classes that can win
alone. Elsewhere the host would wait for the device: the whole batch is computed at once, in a number of operators that
does not depend on the number of images, and nothing is read back.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.core.postprocess import Instances, tight_boxes
from mmseg_m2f.core.selection import (
    append_unrecognised,
    best_pairs,
    confident_queries,
    kept_first,
    segment_ids,
    survives_nms,
)
from mmseg_m2f.core.strips import Resizing, strips

#: The first guess of what the least certain pixel of a strip scores. It costs or saves time and changes nothing.
_USUAL_SCORE = 0.25
#: On upper bounds of scores: far more than rounding adds, also that of TF32 and bfloat16 products.
_SLACK = 1.02


def semantic_labels(
    class_logits: Float[Tensor, "B Q K1"],
    mask_logits: Float[Tensor, "B Q h w"],
    resizing: Resizing,
    *,
    resize_scores: bool = False,
    max_memory_mb: int | None = None,
) -> Int[Tensor, "B H W"]:
    """The class with the highest score of each pixel, the first of equals, as by `postprocess.semantic_scores`.

    On a CPU, classes that cannot win anywhere in a strip are left out of its scores: that changes nothing but the time.

    Args:
        mask_logits: as predicted, at any resolution.
        resize_scores: resize class scores from the crop to the result's size, as mmsegmentation does, instead of mask
            logits. Makes no difference where both sizes are equal.
        max_memory_mb: roughly, besides arguments and result; by default what suits the device.
    """
    class_probs = class_logits.float().softmax(-1)[..., :-1]
    _, num_queries, num_classes = class_probs.shape
    values = 4 * num_queries + (4 if resize_scores else 2) * num_classes
    labels = torch.empty(len(class_probs), *resizing.size, dtype=torch.long, device=mask_logits.device)
    winners = _winners_of_each if _reads_are_free(mask_logits) else _winners
    for batch in _batches(mask_logits):
        votes = class_probs[batch]
        for rows, processed, finish in strips(
            mask_logits[batch], resizing, values_per_pixel=values, max_memory_mb=max_memory_mb
        ):
            if resize_scores:
                labels[batch, rows] = winners(votes, processed.sigmoid(), finish)
            else:
                labels[batch, rows] = winners(votes, finish(processed).sigmoid(), _unchanged)
    return labels


def panoptic_maps(
    class_logits: Float[Tensor, "B Q K1"],
    mask_logits: Float[Tensor, "B Q h w"],
    is_thing: Bool[Tensor, "K"],
    resizing: Resizing,
    *,
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    keep_low_pixels: bool = False,
    from_probs: bool = False,
    max_memory_mb: int | None = None,
) -> Int[Tensor, "B H W"]:
    """The panoptic map of each image: class + 1000 · instance number, K where nothing was recognised.

    Queries that score more than `object_threshold` compete for each pixel by score times mask probability. One that
    wins less than `overlap_threshold` of its own mask is dropped. Things are numbered from 1 in query order, stuff
    has number 0 and is one segment per class.

    Args:
        mask_logits: as predicted, at any resolution.
        keep_low_pixels: also keep pixels that a query wins with a mask probability below 0.5 (MaskFormer's rule;
            Mask2Former leaves them unrecognised).
        from_probs: `mask_logits` are mask probabilities already.
        max_memory_mb: roughly, besides arguments and result; by default what suits the device.
    """
    scores, labels, is_confident = confident_queries(class_logits, object_threshold)
    rule = _Rule(is_thing, overlap_threshold, keep_low_pixels, from_probs)
    if not _reads_are_free(mask_logits):
        return _panoptic_maps(scores, labels, is_confident, mask_logits, None, rule, resizing, max_memory_mb)
    maps = [labels.new_empty(0, *resizing.size)]
    for batch in _batches(mask_logits):
        queries = is_confident[batch].nonzero()[:, 1].unsqueeze(0)
        score, label, counts = (x[batch].gather(1, queries) for x in (scores, labels, is_confident))
        maps.append(_panoptic_maps(score, label, counts, mask_logits[batch], queries, rule, resizing, max_memory_mb))
    return torch.cat(maps)


def top_instances(
    class_logits: Float[Tensor, "B Q K1"],
    mask_logits: Float[Tensor, "B Q h w"],
    is_thing: Bool[Tensor, "K"],
    resizing: Resizing,
    *,
    num_things: int,
    class_activation: str = "softmax",
    boxes: Float[Tensor, "B Q 4"] | None = None,
    max_per_image: int = 100,
    things_first: bool = True,
    score_threshold: float = 0.0,
    one_class_per_query: bool = False,
    mask_nms_threshold: float | None = None,
    soft_masks: bool = False,
    from_probs: bool = False,
    max_memory_mb: int | None = None,
) -> list[Instances]:
    """The best pairs of query and thing class of each image; a query may appear with several classes.

    The score is the class probability times the mean mask probability inside the mask. The boxes are tight unless the
    queries have boxes. How many there are is known beforehand unless `things_first` is False, a `score_threshold` is
    set or masks are suppressed; then it is read back, once for the whole batch.

    Args:
        mask_logits: as predicted, at any resolution.
        num_things: how many classes are things.
        class_activation: what makes class logits probabilities, see `selection.class_probs_of`.
        boxes: x1 y1 x2 y2 of the queries, in pixels of the result.
        max_per_image: how many pairs; fewer where there are fewer.
        things_first: spend them on things alone. The official release and mmdet also let stuff compete and drop it
            afterwards.
        score_threshold: leave out what scores less.
        one_class_per_query: let a query appear with its best class alone.
        mask_nms_threshold: leave out an object whose mask has a higher IoU than this with a better one of its class.
        soft_masks: also give the mask probabilities.
        from_probs: `mask_logits` are mask probabilities already.
        max_memory_mb: roughly, besides arguments and result; by default what suits the device.
    """
    if things_first:  # so that all pairs count
        per_query = min(num_things, 1) if one_class_per_query else num_things
        max_per_image = min(max_per_image, per_query * class_logits.shape[1])
    best, labels, queries, wanted = best_pairs(
        class_logits,
        is_thing,
        class_activation=class_activation,
        max_per_image=max_per_image,
        things_first=things_first,
        one_class_per_query=one_class_per_query,
    )
    found: list[Instances] = []
    for batch in _batches(mask_logits):
        pairs = tuple(x[batch] for x in (best, labels, queries, wanted))
        if _reads_are_free(mask_logits):  # one image: only what counts is resized
            pairs = tuple(x[:, pairs[-1][0]] for x in pairs)
        class_scores, classes, chosen, counts = pairs
        masks, mask_probs, certainty = _resized_masks(
            mask_logits[batch],
            chosen,
            resizing,
            soft_masks=soft_masks,
            from_probs=from_probs,
            max_memory_mb=max_memory_mb,
        )
        scores = class_scores * certainty
        if boxes is None:
            corners = tight_boxes(masks.flatten(0, 1)).unflatten(0, scores.shape)
        else:
            corners = boxes[batch].gather(1, chosen.unsqueeze(-1).expand(-1, -1, 4))
        fields = (scores, classes, corners, masks, mask_probs)
        if things_first and score_threshold <= 0 and mask_nms_threshold is None:
            found += _each_of(fields)
            continue
        kept = counts & (scores >= score_threshold)
        if mask_nms_threshold is not None:
            kept &= survives_nms(masks, classes, scores, mask_nms_threshold)
        for image, numbers in zip(_each_of(fields), kept_first(kept), strict=True):
            found.append(_some_of(image, numbers))
    return found


class _Rule(NamedTuple):
    """Arguments of `panoptic_maps`."""

    is_thing: Bool[Tensor, "K"]
    overlap_threshold: float
    keep_low_pixels: bool
    from_probs: bool


def _reads_are_free(x: Tensor) -> bool:
    """Whether the host reads values of this tensor without waiting for a device."""
    return x.device.type == "cpu"


def _batches(mask_logits: Float[Tensor, "B Q h w"]) -> list[slice]:
    """Which images are computed together: each alone where reads are free, else all."""
    if not _reads_are_free(mask_logits):
        return [slice(None)]
    return [slice(image, image + 1) for image in range(len(mask_logits))]


def _unchanged(x: Tensor) -> Tensor:
    return x


def _winners(
    class_probs: Float[Tensor, "B Q K"], mask_probs: Float[Tensor, "B Q h w"], finish: Callable[[Tensor], Tensor]
) -> Int[Tensor, "B H W"]:
    """The best class of each pixel; `finish` resizes the scores."""
    scores = finish((class_probs.mT @ mask_probs.flatten(2)).unflatten(2, mask_probs.shape[2:]))
    return scores.max(1).indices


def _winners_of_each(
    class_probs: Float[Tensor, "1 Q K"], mask_probs: Float[Tensor, "1 Q h w"], finish: Callable[[Tensor], Tensor]
) -> Int[Tensor, "1 H W"]:
    """`_winners` of one image, from the scores of the classes that can win.

    No pixel scores more for a class than the class' votes times the highest mask probability of each query. Classes
    for which that is less than what the least certain pixel scores for its best one win nowhere. What it scores is
    guessed, and seen afterwards: if the guess was too high, the scores are computed again with more classes.
    """
    bounds = mask_probs[0].amax((1, 2)) @ class_probs[0] * _SLACK
    tried = ~(bounds < bounds.max().clamp(max=_USUAL_SCORE))  # where a bound is NaN, too
    best, labels = _best_of(tried, class_probs, mask_probs, finish)
    missed = ~tried & ~(bounds < best.min())
    if missed.any():
        _, labels = _best_of(tried | missed, class_probs, mask_probs, finish)
    return labels


def _best_of(
    classes: Bool[Tensor, "K"],
    class_probs: Float[Tensor, "1 Q K"],
    mask_probs: Float[Tensor, "1 Q h w"],
    finish: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "1 H W"], Int[Tensor, "1 H W"]]:
    """Score and class of the best among some classes."""
    chosen = classes.nonzero().squeeze(1)
    scores = finish((class_probs[:, :, chosen].mT @ mask_probs.flatten(2)).unflatten(2, mask_probs.shape[2:]))
    best, index = scores.max(1)
    return best, chosen[index]


def _panoptic_maps(
    scores: Float[Tensor, "B N"],
    labels: Int[Tensor, "B N"],
    is_confident: Bool[Tensor, "B N"],
    mask_logits: Float[Tensor, "B Q h w"],
    queries: Int[Tensor, "B N"] | None,
    rule: _Rule,
    resizing: Resizing,
    max_memory_mb: int | None,
) -> Int[Tensor, "B H W"]:
    num_images, num_queries = scores.shape
    # Number of the winning query, or `num_queries`: nothing recognised.
    winners = labels.new_full((num_images, *resizing.size), num_queries)
    won, own = torch.zeros_like(labels), torch.zeros_like(labels)
    behind = (is_confident.to(scores.dtype) - 1)[..., None, None]  # other queries lose against all confident ones
    for rows, processed, finish in strips(
        mask_logits, resizing, values_per_pixel=6 * num_queries, max_memory_mb=max_memory_mb, queries=queries
    ):
        probs = finish(processed) if rule.from_probs else finish(processed).sigmoid()
        certain = probs >= 0.5
        winner = torch.addcmul(behind, scores[..., None, None], probs).max(1).indices  # much faster than argmax
        won.scatter_add_(1, winner.flatten(1), torch.ones_like(winner).flatten(1))
        own += certain.sum((2, 3))
        if not rule.keep_low_pixels:
            winner = winner.where(certain.gather(1, winner.unsqueeze(1)).squeeze(1), num_queries)
        winners[:, rows] = winner
    ids = segment_ids(
        labels,
        rule.is_thing,
        won=won,
        own=own,
        overlap_threshold=rule.overlap_threshold,
        is_confident=is_confident,
    )
    table = append_unrecognised(ids, len(rule.is_thing))
    return table.gather(1, winners.flatten(1)).view_as(winners)


def _resized_masks(
    mask_logits: Float[Tensor, "B Q h w"],
    queries: Int[Tensor, "B N"],
    resizing: Resizing,
    *,
    soft_masks: bool,
    from_probs: bool,
    max_memory_mb: int | None,
) -> tuple[Bool[Tensor, "B N H W"], Float[Tensor, "B N H W"] | None, Float[Tensor, "B N"]]:
    """Masks of some queries, their probabilities if asked for, and the mean probability inside each mask."""
    inverse = None
    if _reads_are_free(mask_logits):  # one image: each query is resized once
        chosen, inverse = queries[0].unique(return_inverse=True)
        queries = chosen.unsqueeze(0)
    num_images, num_pairs = len(queries), queries.shape[1] if inverse is None else len(inverse)
    masks = torch.empty(num_images, num_pairs, *resizing.size, dtype=torch.bool, device=mask_logits.device)
    mask_probs = torch.empty_like(masks, dtype=torch.float32) if soft_masks else None
    inside = torch.zeros(queries.shape, dtype=torch.float64, device=mask_logits.device)
    area = torch.zeros_like(queries)
    for rows, processed, finish in strips(
        mask_logits, resizing, values_per_pixel=6 * queries.shape[1], max_memory_mb=max_memory_mb, queries=queries
    ):
        logits = finish(processed)
        strip, probs = (logits > 0.5, logits) if from_probs else (logits > 0, logits.sigmoid())
        # Probabilities above 0.5 are multiples of 2^-24: in float64 their sum is exact, in any order.
        inside += (probs * strip).sum((2, 3), dtype=torch.float64)
        area += strip.sum((2, 3))
        masks[:, :, rows] = strip if inverse is None else strip[:, inverse]
        if mask_probs is not None:
            mask_probs[:, :, rows] = probs if inverse is None else probs[:, inverse]
    certainty = inside.float() / (area + 1e-6)
    return masks, mask_probs, certainty if inverse is None else certainty[:, inverse]


def _some_of(image: Instances, numbers: Int[Tensor, "n"]) -> Instances:
    """Some objects of an image."""
    scores, labels, boxes, masks, mask_probs = image
    assert masks is not None
    soft_masks = None if mask_probs is None else mask_probs[numbers]
    return Instances(scores[numbers], labels[numbers], boxes[numbers], masks[numbers], soft_masks)


def _each_of(fields: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]) -> list[Instances]:
    """The objects of each image of a batch."""
    scores, labels, boxes, masks, mask_probs = (None if field is None else field.unbind() for field in fields)
    assert scores is not None
    assert labels is not None
    assert boxes is not None
    assert masks is not None
    soft = mask_probs or [None] * len(scores)
    return [Instances(*image) for image in zip(scores, labels, boxes, masks, soft, strict=True)]
