"""Objects, panoptic maps and class scores of several views of an image (other scales, mirror images), made one.

Objects, by these rules:

- Objects of two views may be the same one if they have the same class and their masks have an IoU of at least
  `min_iou`. The best pairs are taken first, by IoU times both scores. Any number of views may have found it, each once.
- Its score is the sum of its parts' scores divided by the number of all views: one that did not find it counts as 0.
- Its mask has the pixels that hold at least half of the sum of its parts' scores.

In panoptic maps all things have score 1. Each pixel gets what most views say about it: one of the things that were put
together so, a kind of stuff, or nothing. Where a view shows a thing that fewer than half of them found, it has no
say; between equally many views the first decides.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from mmseg_m2f.core.cropped_masks import CroppedMasks
from mmseg_m2f.core.selection import INSTANCE_OFFSET
from mmseg_m2f.core.window_objects import FoundObjects, JoinedObject, Part, cut_object, found_segments, group_parts
from mmseg_m2f.core.windows import Window

_NO_SAY = -1


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
    """The panoptic map of an image (class + 1000 · instance number, K for nothing) from those of its views."""
    height, width = maps[0].shape
    everywhere = (slice(0, height), slice(0, width))
    views = [found_segments(each, Window(*everywhere, *everywhere)) for each in maps]
    said = np.stack([np.where(each < INSTANCE_OFFSET, each, _NO_SAY) for each in maps])
    number = 0
    for parts in _groups(views, (height, width), min_iou):
        if 2 * len(parts) < len(maps):
            continue
        number += 1
        for view, index in parts:
            top, left, bottom, right = views[view].boxes[index]
            thing = views[view].labels[index] + INSTANCE_OFFSET * number
            said[view][top:bottom, left:right][views[view].crops[index]] = thing
    votes = np.stack([(said == each).sum(0) for each in said]) * (said != _NO_SAY)
    merged = np.take_along_axis(said, votes.argmax(0)[None], 0)[0]
    return np.where(merged == _NO_SAY, num_classes, merged)


def mean_scores(views: Sequence[Float[Tensor, "*B K H W"]]) -> Float[Tensor, "*B K H W"]:
    """Mean over the views. Views 2i and 2i + 1 are added first, so that swapping the two changes no bit."""
    pairs = [sum(views[first + 1 : first + 2], views[first]) for first in range(0, len(views), 2)]
    return sum(pairs[1:], pairs[0]) / len(views)


def suppress_duplicates(objects: Sequence[JoinedObject], size: tuple[int, int], threshold: float) -> list[JoinedObject]:
    """Those whose mask has no IoU above a threshold with a better one of its class that stays.

    Args:
        objects: the highest score first.
    """
    found = objects_found(objects)
    ious = _ious(found, found, size)
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
        mirrored.append(each._replace(box=(top, left, bottom, right), crop=crop))
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
    pairs = []
    for (first, a), (second, b) in combinations(enumerate(views), 2):
        ious = _ious(a, b, size)
        strength = ious * a.scores[:, None] * b.scores
        pairs += [(float(strength[i, j]), (first, int(i)), (second, int(j))) for i, j in np.argwhere(ious >= min_iou)]
    return group_parts(pairs, [len(view.labels) for view in views])


def _ious(first: FoundObjects, second: FoundObjects, size: tuple[int, int]) -> Float[np.ndarray, "N M"]:
    """IoU of each pair of masks, 0 for those of different classes."""
    a, b = (CroppedMasks(size, objects.boxes, tuple(objects.crops)) for objects in (first, second))
    common = a.shared_pixels(b, first.labels[:, None] == second.labels)
    return common / np.maximum(a.areas()[:, None] + b.areas() - common, 1)


def _merged(parts: Sequence[Part], views: Sequence[FoundObjects]) -> JoinedObject | None:
    """The object of some parts; None where no pixel holds enough of their scores."""
    boxes = np.stack([views[view].boxes[index] for view, index in parts])
    scores = [float(views[view].scores[index]) for view, index in parts]
    corner = boxes[:, :2].min(0)
    held = np.zeros(boxes[:, 2:].max(0) - corner)
    for (view, index), (top, left, bottom, right), score in zip(parts, boxes - np.tile(corner, 2), scores, strict=True):
        held[top:bottom, left:right][views[view].crops[index]] += score
    mask = (held > 0) & (held >= sum(scores) / 2)
    if not mask.any():
        return None
    view, index = parts[0]
    label, place = int(views[view].labels[index]), (int(corner[0]), int(corner[1]))
    return cut_object(parts, label=label, score=sum(scores) / len(views), mask=mask, corner=place)
