"""Objects, panoptic maps and class scores of several views of an image (other scales, mirror images), made one.

Objects:

- Objects of two views may be the same one if they have the same class and their masks have an IoU of at least
  `min_iou`. The best pairs are taken first, by IoU times both scores. Any number of views may have found it, each once.
- Its score is the sum of its parts' scores s_v divided by the number V of all views, Σ s_v / V: a view that did not
  find it counts as 0.
- A pixel is in its mask if the parts whose masks m_v have it make up at least half of that sum:
  Σ_{v: pixel ∈ m_v} s_v ≥ ½ Σ s_v. Of two parts, that is the mask with the higher score.

Panoptic maps:

- Things are put together by the same rules, each with score 1. Those that at least half of the views found stay; where
  they overlap, those of more views lie in front, then smaller ones.
- Elsewhere a pixel has the kind of stuff that most views have there, whatever a view has there besides. Of kinds with
  equally many, it has the one that covers most pixels of all views; it is void only if no view has stuff there.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mmseg_m2f.core.cropped_masks import CroppedMasks
from mmseg_m2f.core.selection import INSTANCE_OFFSET
from mmseg_m2f.core.window_objects import FoundObjects, JoinedObject, Part, cut_object, found_segments, group_parts
from mmseg_m2f.core.windows import Window

_TINY = 1e-12  # the weight of a score of 0


def merge_objects(views: Sequence[FoundObjects], size: tuple[int, int], *, min_iou: float = 0.5) -> list[JoinedObject]:
    """The objects of an image, the highest score first; see the top of the module for the rules.

    Args:
        views: what each view shows, at the same size and with flips undone.
        size: height and width of the image.
        min_iou: of two objects that may be the same one, in (0, 1].
    """
    merged = [_merged(parts, views) for parts in _groups(views, size, min_iou)]
    return sorted((each for each in merged if each is not None), key=lambda each: -each.score)


def merge_panoptic(
    maps: Sequence[Int[np.ndarray, "H W"]], *, num_classes: int, min_iou: float = 0.5
) -> Int[np.ndarray, "H W"]:
    """The panoptic map of an image (class + 1000 · instance number, K for void) from those of its views.

    The order of the views changes the numbers of things alone, except where pairs of them match equally well.
    """
    height, width = maps[0].shape
    everywhere = (slice(0, height), slice(0, width))
    views = [found_segments(each, Window(*everywhere, *everywhere)) for each in maps]
    things = [each for each in merge_objects(views, (height, width), min_iou=min_iou) if each.score >= 0.5]
    merged = _most_frequent_stuff(maps, num_classes)
    things.sort(key=lambda each: (len(each.parts), -np.count_nonzero(each.crop), each.box, each.label))
    for number, each in enumerate(things):
        top, left, bottom, right = each.box
        merged[top:bottom, left:right][each.crop] = each.label + INSTANCE_OFFSET * (number + 1)
    return merged


def mean_scores(views: Sequence[Float[Tensor, "*B K H W"]]) -> Float[Tensor, "*B K H W"]:
    """Mean over the views. Views 2i and 2i + 1 are added first, so that swapping the two changes no bit."""
    if len(views) == 1:
        return views[0]
    pairs = [sum(views[first + 1 : first + 2], views[first]) for first in range(0, len(views), 2)]
    return sum(pairs[1:], pairs[0]) / len(views)


def suppress_duplicates(objects: Sequence[JoinedObject], size: tuple[int, int], threshold: float) -> list[JoinedObject]:
    """Those whose mask has no IoU above a threshold with a better one of its class that stays.

    Args:
        objects: the highest score first.
    """
    found = objects_found(objects)
    masks = _masks(found, size)
    better = np.tri(len(objects), k=-1, dtype=bool) & (found.labels[:, None] == found.labels)
    ious = _ious(masks, masks, better, least=threshold)
    kept: list[int] = []
    for index in range(len(objects)):
        if not (ious[index, kept] > threshold).any():
            kept.append(index)
    return [objects[index] for index in kept]


def mirror_objects(objects: Sequence[JoinedObject], size: tuple[int, int], direction: str) -> list[JoinedObject]:
    """The objects of the mirror image; "horizontal" swaps left and right, "vertical" top and bottom."""
    height, width = size
    mirrored = []
    for each in objects:
        (top, left, bottom, right), crop = each.box, each.crop
        if direction in ("horizontal", "diagonal"):
            left, right, crop = width - right, width - left, crop[:, ::-1]
        if direction in ("vertical", "diagonal"):
            top, bottom, crop = height - bottom, height - top, crop[::-1]
        mirrored.append(each._replace(box=(top, left, bottom, right), crop=np.ascontiguousarray(crop)))
    return mirrored


def objects_found(objects: Sequence[JoinedObject]) -> FoundObjects:
    """The objects of one view, as they are merged with those of others."""
    return FoundObjects(
        np.array([each.label for each in objects], np.int64),
        np.array([each.score for each in objects], np.float64),
        np.array([each.box for each in objects], np.int64).reshape(-1, 4),
        [each.crop for each in objects],
    )


def _groups(views: Sequence[FoundObjects], size: tuple[int, int], min_iou: float) -> list[list[Part]]:
    """Parts that belong together, in order of their views."""
    seen = [(view, _masks(view, size)) for view in views]
    pairs = []
    for (first, (a, masks_a)), (second, (b, masks_b)) in combinations(enumerate(seen), 2):
        ious = _ious(masks_a, masks_b, a.labels[:, None] == b.labels, least=min_iou)
        strength = ious * a.scores[:, None] * b.scores
        pairs += [(float(strength[i, j]), (first, int(i)), (second, int(j))) for i, j in np.argwhere(ious >= min_iou)]
    return group_parts(pairs, [len(view.labels) for view in views])


def _masks(objects: FoundObjects, size: tuple[int, int]) -> CroppedMasks:
    return CroppedMasks(size, objects.boxes, tuple(objects.crops))


def _ious(
    first: CroppedMasks, second: CroppedMasks, wanted: Bool[np.ndarray, "N M"], *, least: float
) -> Float[np.ndarray, "N M"]:
    """IoU of each pair of masks; 0 for those that are not wanted, or cannot reach `least`."""
    areas, others = first.areas()[:, None], second.areas()
    sides = np.minimum(first.boxes[:, None, 2:], second.boxes[:, 2:])
    sides -= np.maximum(first.boxes[:, None, :2], second.boxes[:, :2])
    most = np.minimum(np.minimum(areas, others), sides.clip(min=0).prod(-1))  # pixels that two masks can share
    common = first.shared_pixels(second, wanted & (most >= least * (areas + others - most)))
    return common / np.maximum(areas + others - common, 1)


def _merged(parts: Sequence[Part], views: Sequence[FoundObjects]) -> JoinedObject | None:
    """The object of some parts; None where no pixel holds enough of their scores."""
    boxes = np.stack([views[view].boxes[index] for view, index in parts])
    scores = [float(views[view].scores[index]) for view, index in parts]
    weights = [max(score, _TINY) for score in scores]
    corner = boxes[:, :2].min(0)
    held = np.zeros(boxes[:, 2:].max(0) - corner)
    for (view, index), (top, left, bottom, right), weight in zip(
        parts, boxes - np.tile(corner, 2), weights, strict=True
    ):
        held[top:bottom, left:right][views[view].crops[index]] += weight
    mask = (held > 0) & (held >= sum(weights) / 2)
    if not mask.any():
        return None
    view, index = parts[0]
    label, place = int(views[view].labels[index]), (int(corner[0]), int(corner[1]))
    return cut_object(parts, label=label, score=sum(scores) / len(views), mask=mask, corner=place)


def _most_frequent_stuff(maps: Sequence[Int[np.ndarray, "H W"]], num_classes: int) -> Int[np.ndarray, "H W"]:
    """The kind of stuff that most maps have at a pixel, K where none has any."""
    covered = np.zeros(INSTANCE_OFFSET, np.int64)
    for each in maps:
        covered += np.bincount(each[each < INSTANCE_OFFSET].ravel(), minlength=INSTANCE_OFFSET)
    covered[num_classes] = 0  # void is no kind of stuff
    merged = np.full(maps[0].shape, num_classes, np.int64)
    most: NDArray[np.int32] = np.zeros(merged.shape, np.int32)
    kinds = np.flatnonzero(covered)
    for kind in kinds[np.argsort(-covered[kinds], kind="stable")]:
        count = np.zeros(merged.shape, np.int32)
        for each in maps:
            count += each == kind
        merged[count > most] = kind
        most = np.maximum(most, count)
    return merged
