"""The answers of `core.postprocess`, computed in strips of rows.

Mask logits of all queries, or scores of all classes, at the size of a large image take gigabytes. Here they exist for
a few rows at a time, whatever the size of the image. What comes out is the same as from resizing all mask logits and
calling `core.postprocess`:

- A row of a bilinear resize needs two rows of its source, so a strip is resized alone: columns by `F.interpolate`,
  rows by the arithmetic of its kernel. On processors with a fused multiply-add the logits are equal bit for bit.
  They are equal up to rounding on others, below 128 columns (PyTorch takes another kernel), and in half precision
  (computed in float32 here).
- Class scores are sums over queries, which a matrix product of another shape may round otherwise. Only pixels where
  two classes score the same up to that rounding can get the other one.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmseg_m2f.core.postprocess import Instances, survives_nms, tight_boxes
from mmseg_m2f.core.selection import best_pairs, segment_ids, sure_queries

#: The first guess of what the least certain pixel of a strip scores. It costs or saves time and changes nothing.
_USUAL_SCORE = 0.25
#: On upper bounds of scores: far more than rounding adds, also that of TF32 and bfloat16 products.
_SLACK = 1.02


class Resizing(NamedTuple):
    """How the mask logits of one image get to the size of its answer; each is (height, width).

    They are resized to the `canvas`, the padded input of the network; its upper left part `crop` is the image; and
    that is resized to the `size` of the answer.
    """

    canvas: tuple[int, int]
    crop: tuple[int, int]
    size: tuple[int, int]


class RowResize:
    """`postprocess.resize_maps` from one size, (height, width), to another, for some rows of the result."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int], device: torch.device) -> None:
        self._target = target
        self._identity = source == target
        scale = torch.tensor(float(source[0])) / target[0]
        # Rounded to float32 once, as by a fused multiply-add.
        places = (scale.double() * (torch.arange(target[0]).double() + 0.5) - 0.5).float().clamp(min=0)
        above = places.long().clamp(max=source[0] - 1)
        below = (above + 1).clamp(max=source[0] - 1)
        self._first, self._last = above.tolist(), below.tolist()
        weight = (places - above).clamp(max=1)
        self._above, self._below, self._weight = above.to(device), below.to(device), weight.to(device)

    def source_rows(self, rows: slice) -> slice:
        """The rows of the source that these rows of the result need."""
        return rows if self._identity else slice(self._first[rows.start], self._last[rows.stop - 1] + 1)

    def __call__(self, maps: Float[Tensor, "C _ _"], rows: slice) -> Float[Tensor, "C _ _"]:
        """Some rows of the result; `maps` are the `source_rows` of the source."""
        if self._identity:
            return maps
        wide = F.interpolate(maps.unsqueeze(0), (maps.shape[1], self._target[1]), mode="bilinear").squeeze(0)
        start = self._first[rows.start]
        weight = self._weight[rows, None]
        # In the kernels' order: above · (1 - weight) is added to the rounded below · weight.
        below = wide.index_select(1, self._below[rows] - start).mul_(weight)
        return below.addcmul_(wide.index_select(1, self._above[rows] - start), 1 - weight)


def semantic_labels(
    class_logits: Float[Tensor, "Q K1"],
    mask_logits: Float[Tensor, "Q _ _"],
    resizing: Resizing,
    *,
    resize_scores: bool = False,
    max_memory_mb: int = 64,
) -> Int[Tensor, "H W"]:
    """The class with the highest score of each pixel, the first of equals, as by `postprocess.semantic_scores`.

    Classes that cannot win anywhere in a strip are left out of its scores: that changes nothing but the time.

    Args:
        mask_logits: as predicted, at any resolution.
        resize_scores: resize class scores from the crop to the answer's size, as mmsegmentation does, instead of mask
            logits. Makes no difference where both sizes are equal.
        max_memory_mb: roughly, besides arguments and result. A strip has one row at least.
    """
    class_probs = class_logits.float().softmax(-1)[:, :-1]
    num_queries, num_classes = class_probs.shape
    values = 4 * num_queries + (4 if resize_scores else 2) * num_classes
    labels = torch.empty(resizing.size, dtype=torch.long, device=mask_logits.device)
    for rows, processed, finish in _strips(mask_logits, resizing, values, max_memory_mb):
        if resize_scores:
            labels[rows] = _winners(class_probs, processed.sigmoid(), finish)
        else:
            labels[rows] = _winners(class_probs, finish(processed).sigmoid())
    return labels


def streamed_panoptic_map(
    class_logits: Float[Tensor, "Q K1"],
    mask_logits: Float[Tensor, "Q _ _"],
    is_thing: Bool[Tensor, "K"],
    resizing: Resizing,
    *,
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    keep_low_pixels: bool = False,
    max_memory_mb: int = 64,
) -> Int[Tensor, "H W"]:
    """`postprocess.panoptic_map` of the resized mask logits; only those of sure queries are resized.

    Args:
        mask_logits: as predicted, at any resolution.
        max_memory_mb: roughly, besides arguments and result. A strip has one row at least.
    """
    scores, labels, queries = sure_queries(class_logits, object_threshold)
    num_classes, num_kept = len(is_thing), len(queries)
    if num_kept == 0:
        return labels.new_full(resizing.size, num_classes)
    winners = labels.new_empty(resizing.size)  # number of the kept query, or `num_kept`: nothing recognised
    won, own = labels.new_zeros(num_kept), labels.new_zeros(num_kept)
    for rows, processed, finish in _strips(mask_logits, resizing, 6 * num_kept, max_memory_mb, queries):
        probs = finish(processed).sigmoid()
        certain = probs >= 0.5
        winner = (scores[:, None, None] * probs).max(0).indices  # much faster than argmax
        won += torch.bincount(winner.flatten(), minlength=num_kept)
        own += certain.sum((1, 2))
        if not keep_low_pixels:
            winner = winner.where(certain.gather(0, winner.unsqueeze(0)).squeeze(0), num_kept)
        winners[rows] = winner
    ids = segment_ids(labels, is_thing, won=won, own=own, overlap_threshold=overlap_threshold)
    return torch.cat([ids, ids.new_tensor([num_classes])])[winners]


def streamed_top_instances(
    class_logits: Float[Tensor, "Q K1"],
    mask_logits: Float[Tensor, "Q _ _"],
    is_thing: Bool[Tensor, "K"],
    resizing: Resizing,
    *,
    max_per_image: int = 100,
    things_first: bool = True,
    score_threshold: float = 0.0,
    one_class_per_query: bool = False,
    mask_nms_threshold: float | None = None,
    soft_masks: bool = False,
    max_memory_mb: int = 64,
) -> Instances:
    """`postprocess.top_instances` of the resized mask logits; each chosen query is resized once.

    The masks are the same, the scores up to the order in which mask probabilities are added up.

    Args:
        mask_logits: as predicted, at any resolution.
        max_memory_mb: roughly, besides arguments and result. A strip has one row at least.
    """
    best, labels, pair_queries = best_pairs(
        class_logits,
        is_thing,
        max_per_image=max_per_image,
        things_first=things_first,
        one_class_per_query=one_class_per_query,
    )
    queries, place = pair_queries.unique(return_inverse=True)
    masks = torch.empty(len(place), *resizing.size, dtype=torch.bool, device=mask_logits.device)
    mask_probs = torch.empty_like(masks, dtype=torch.float32) if soft_masks else None
    inside, area = best.new_zeros(len(queries), dtype=torch.float64), labels.new_zeros(len(queries))
    for rows, processed, finish in _strips(mask_logits, resizing, 6 * len(queries), max_memory_mb, queries):
        logits = finish(processed)
        strip, probs = logits > 0, logits.sigmoid()
        inside += (probs * strip).sum((1, 2))
        area += strip.sum((1, 2))
        masks[:, rows] = strip[place]
        if mask_probs is not None:
            mask_probs[:, rows] = probs[place]
    scores = best * (inside.float() / (area + 1e-6))[place]
    kept = scores >= score_threshold
    if mask_nms_threshold is not None:
        kept &= survives_nms(masks, labels, scores, mask_nms_threshold)
    if not kept.all():  # the masks are large: copy them only where some go
        masks, mask_probs = masks[kept], None if mask_probs is None else mask_probs[kept]
    return Instances(scores[kept], labels[kept], tight_boxes(masks), masks, mask_probs)


def _winners(
    class_probs: Float[Tensor, "Q K"],
    mask_probs: Float[Tensor, "Q _ _"],
    finish: Callable[[Tensor], Tensor] = lambda scores: scores,
) -> Int[Tensor, "_ _"]:
    """The best class of each pixel; `finish` resizes the scores.

    No pixel scores more for a class than the class' votes times the highest mask probability of each query. Classes
    for which that is less than what the least certain pixel scores for its best one win nowhere. What it scores is
    guessed, and seen afterwards: if the guess was too high, the scores are computed again with more classes.
    """
    bounds = mask_probs.amax((1, 2)) @ class_probs * _SLACK
    tried = ~(bounds < bounds.max().clamp(max=_USUAL_SCORE))  # where a bound is NaN, too
    best, labels = _best_of(tried, class_probs, mask_probs, finish)
    missed = ~tried & ~(bounds < best.min())
    if missed.any():
        _, labels = _best_of(tried | missed, class_probs, mask_probs, finish)
    return labels


def _best_of(
    classes: Bool[Tensor, "K"],
    class_probs: Float[Tensor, "Q K"],
    mask_probs: Float[Tensor, "Q _ _"],
    finish: Callable[[Tensor], Tensor],
) -> tuple[Float[Tensor, "_ _"], Int[Tensor, "_ _"]]:
    """Score and class of the best among some classes."""
    chosen = classes.nonzero().squeeze(1)
    scores = finish((class_probs[:, chosen].T @ mask_probs.flatten(1)).unflatten(1, mask_probs.shape[1:]))
    best, index = scores.max(0)
    return best, chosen[index]


def _strips(
    mask_logits: Float[Tensor, "Q _ _"],
    resizing: Resizing,
    values_per_pixel: int,
    max_memory_mb: int,
    queries: Int[Tensor, "N"] | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "N _ _"], Callable[[Tensor], Tensor]]]:
    """Rows of the answer, the mask logits on the cropped canvas that they come from, and how to resize to those rows.

    None at all without queries.

    Args:
        values_per_pixel: how many float32 the caller needs at most, to choose the height of the strips.
        queries: whose mask logits; all by default.
    """
    if values_per_pixel == 0:
        return
    canvas, crop, size = resizing
    to_canvas = RowResize((mask_logits.shape[1], mask_logits.shape[2]), canvas, mask_logits.device)
    to_answer = RowResize(crop, size, mask_logits.device)
    pixels_per_row = max(canvas[1], size[1]) * max(1, crop[0] / size[0])
    height = max(1, int(max_memory_mb * 2**20 / (4 * values_per_pixel * pixels_per_row)))
    for top in range(0, size[0], height):
        rows = slice(top, min(top + height, size[0]))
        canvas_rows = to_answer.source_rows(rows)
        needed = to_canvas.source_rows(canvas_rows)
        part = mask_logits[:, needed] if queries is None else mask_logits[:, needed][queries]
        processed = to_canvas(part.float(), canvas_rows)[:, :, : crop[1]]
        yield rows, processed, partial(to_answer, rows=rows)
