"""Objects that were found through overlapping windows of an image, put together.

A window cuts objects at its border, and its neighbour sees them again. The windows' own pixels (`Window.own_rows`,
`own_columns`) divide the image. The rules:

- Two objects of overlapping windows are parts of the same one if they have the same class and their masks have an IoU
  of at least `min_iou` in the overlap. The best pairs are taken first, by IoU times both scores. Parts are joined over
  any number of windows, with at most one of each window.
- A pixel of the joined mask is what the part says in whose window it is an own pixel. Where that window has none of the
  parts, it is in the mask if it is in any part's.
- A joined object is kept if the windows of its parts own at least as many pixels of its mask as any other window owns.
  Otherwise another window sees the object nearer to its middle, and is believed, whether it found it or not.
- Its score is the mean of its parts' scores, each weighted by the pixels of the joined mask that its window owns.

What connected masks without errors are cut into is put together again without errors, whatever their size.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import ndimage

from mmseg_m2f.core.postprocess import Instances, tight_boxes
from mmseg_m2f.core.selection import INSTANCE_OFFSET
from mmseg_m2f.core.windows import Span, Window, WindowGrid, divide

#: Number of a window (or view), and of an object among those found there.
Part: TypeAlias = tuple[int, int]


class FoundObjects(NamedTuple):
    """Objects as arrays on the host, each mask without the emptiness around it."""

    labels: Int[np.ndarray, "N"]
    scores: Float[np.ndarray, "N"]
    boxes: Int[np.ndarray, "N 4"]
    """Top, left, bottom, right in pixels of the image, the last two exclusive."""
    crops: Sequence[Bool[np.ndarray, "_ _"]]
    """The mask within the box."""


class JoinedObject(NamedTuple):
    """One object of the image."""

    label: int
    score: float
    box: tuple[int, int, int, int]
    """Top, left, bottom, right in pixels of the image, the last two exclusive."""
    crop: Bool[np.ndarray, "_ _"]
    parts: tuple[Part, ...]


class _Scene(NamedTuple):
    """The windows of an image, what was found through each, and which rows and columns they own."""

    windows: Sequence[Window]
    found: Sequence[FoundObjects]
    own_rows: Sequence[Span]
    own_columns: Sequence[Span]

    def owners(self, box: Int[np.ndarray, "4"]) -> list[int]:
        """Numbers of the windows that own pixels of a box."""
        top, left, bottom, right = box.tolist()
        rows = [n for n, (start, stop) in enumerate(self.own_rows) if start < bottom and stop > top]
        columns = [n for n, (start, stop) in enumerate(self.own_columns) if start < right and stop > left]
        return [row * len(self.own_columns) + column for row in rows for column in columns]


def found_objects(instances: Instances, window: Window) -> FoundObjects:
    """What was found through a window, without empty masks, at its place in the image."""
    assert instances.masks is not None
    boxes = tight_boxes(instances.masks).cpu().numpy().astype(np.int64)  # those of a box head are not tight
    kept = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
    boxes = boxes[kept][:, [1, 0, 3, 2]]
    masks = instances.masks.cpu().numpy()
    crops = [masks[n, t:b, x:r].copy() for n, (t, x, b, r) in zip(kept.tolist(), boxes.tolist(), strict=True)]
    boxes += np.array([window.rows.start, window.columns.start] * 2)
    labels = instances.labels.cpu().numpy()
    return FoundObjects(labels[kept], instances.scores.cpu().numpy()[kept], boxes, crops)


def found_segments(panoptic: Int[np.ndarray, "_ _"], window: Window) -> FoundObjects:
    """The things of a window's panoptic map; all have score 1."""
    ids, numbers = np.unique(panoptic, return_inverse=True)
    first = int(np.searchsorted(ids, INSTANCE_OFFSET))
    numbers = numbers.reshape(panoptic.shape) - (first - 1)  # 1 for the first thing
    places = ndimage.find_objects(np.maximum(numbers, 0))
    crops = [numbers[place] == number + 1 for number, place in enumerate(places)]
    boxes = np.array([[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in places], np.int64)
    boxes, ids = boxes.reshape(-1, 4), ids[first:]
    boxes += np.array([window.rows.start, window.columns.start] * 2)
    return FoundObjects(ids % INSTANCE_OFFSET, np.ones(len(ids), np.float32), boxes, crops)


def join_objects(grid: WindowGrid, found: Sequence[FoundObjects], *, min_iou: float = 0.5) -> list[JoinedObject]:
    """The objects of an image, the highest score first; see the top of the module for the rules.

    Args:
        found: the objects of each window of the grid, in its order; at most one partner is taken from each.
        min_iou: in the overlap of two windows, in (0, 1].
    """
    scene = _Scene([*grid], found, divide(grid.rows), divide(grid.columns))
    pairs = [pair for first, second in _neighbours(grid) for pair in _matches(scene, first, second, min_iou)]
    groups = group_parts(pairs, [len(objects.labels) for objects in found])
    joined = [_joined(parts, scene) for parts in groups]
    return sorted((whole for whole in joined if whole is not None), key=lambda each: -each.score)


def join_panoptic(
    grid: WindowGrid, maps: Sequence[Int[np.ndarray, "_ _"]], *, num_classes: int, min_iou: float = 0.5
) -> NDArray[np.int64]:
    """The panoptic map of an image (class + 1000 · instance number, K for nothing) from those of its windows.

    Stuff, and nothing, is what the window says that owns the pixel. Things are joined by the rules of this module and
    lie in front of stuff; where two of them meet, the window that owns the pixel decides.
    """
    windows = [*grid]
    found = [found_segments(each, window) for each, window in zip(maps, windows, strict=True)]
    things = join_objects(grid, found, min_iou=min_iou)
    panoptic = np.full(grid.size, num_classes, np.int64)
    ids = [each.label + INSTANCE_OFFSET * (number + 1) for number, each in enumerate(things)]
    for window, seen in zip(windows, maps, strict=True):
        own = _local(seen, window)
        panoptic[window.own_rows, window.own_columns] = np.where(own < INSTANCE_OFFSET, own, num_classes)
    # The smaller things lie in front, and then each window's own pixels decide.
    for number in sorted(range(len(things)), key=lambda n: -np.count_nonzero(things[n].crop)):
        top, left, bottom, right = things[number].box
        panoptic[top:bottom, left:right][things[number].crop] = ids[number]
    whole_of = {part: ids[number] for number, each in enumerate(things) for part in each.parts}
    for index, (window, objects) in enumerate(zip(windows, found, strict=True)):
        for part in range(len(objects.labels)):
            if (index, part) in whole_of:
                own_box, crop = own_part(objects, part, window)
                panoptic[own_box][crop] = whole_of[index, part]
    return panoptic


def own_part(objects: FoundObjects, index: int, window: Window) -> tuple[tuple[slice, slice], Bool[np.ndarray, "_ _"]]:
    """Rows and columns of an object's box that its window owns, and the mask there."""
    box = _shared(_slices(objects.boxes[index]), _own(window))
    return box, _cut(objects.crops[index], objects.boxes[index], box)


def _local(seen: Int[np.ndarray, "_ _"], window: Window) -> Int[np.ndarray, "_ _"]:
    """The own pixels of a window's map."""
    top, left = window.rows.start, window.columns.start
    rows, columns = window.own_rows, window.own_columns
    return seen[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def group_parts(pairs: Sequence[tuple[float, Part, Part]], counts: Sequence[int]) -> list[list[Part]]:
    """Parts that belong together: the strongest pairs first, with at most one part of each window (or view).

    Args:
        pairs: how strong each pair is, and its two parts.
        counts: objects of each window.
    """
    group_of = {
        (window, part): {window: (window, part)} for window, count in enumerate(counts) for part in range(count)
    }
    for _, first, second in sorted(pairs, key=lambda pair: -pair[0]):
        group, other = group_of[first], group_of[second]
        if group is other or group.keys() & other.keys():
            continue
        group |= other
        for part in other.values():
            group_of[part] = group
    unique = {id(group): group for group in group_of.values()}
    return [sorted(group.values()) for group in unique.values()]


def cut_object(
    parts: Sequence[Part], *, label: int, score: float, mask: Bool[np.ndarray, "_ _"], corner: tuple[int, int]
) -> JoinedObject:
    """An object whose mask, which is not empty, lies at a corner (top, left) of the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, left = corner[0] + int(rows[0]), corner[1] + int(columns[0])
    return JoinedObject(label, score, (top, left, top + mask.shape[0], left + mask.shape[1]), mask, tuple(parts))


def _neighbours(grid: WindowGrid) -> Iterator[tuple[int, int]]:
    """Numbers of windows that overlap, each pair once."""
    num_columns = len(grid.columns)
    row_pairs, column_pairs = _overlapping(grid.rows), _overlapping(grid.columns)
    for row, other_row in row_pairs:
        for column, other_column in column_pairs:
            if (row, column) != (other_row, other_column):
                yield row * num_columns + column, other_row * num_columns + other_column
            if row != other_row and column != other_column:
                yield row * num_columns + other_column, other_row * num_columns + column


def _overlapping(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Numbers of spans that overlap, the smaller first; each with itself as well."""
    return [
        (first, second)
        for first, (_, stop) in enumerate(spans)
        for second in range(first, len(spans))
        if second == first or spans[second][0] < stop
    ]


def _matches(scene: _Scene, first: int, second: int, min_iou: float) -> list[tuple[float, Part, Part]]:
    """Pairs of objects of two windows that look the same in their overlap, with IoU times both scores."""
    overlap = _shared(scene.windows[first][:2], scene.windows[second][:2])
    a, b = scene.found[first], scene.found[second]
    near_a, near_b = _touching(a, overlap), _touching(b, overlap)
    if not len(near_a) or not len(near_b):
        return []
    masks_a, masks_b = _dense(a, near_a, overlap), _dense(b, near_b, overlap)
    shared = masks_a @ masks_b.T
    union = masks_a.sum(1)[:, None] + masks_b.sum(1) - shared
    iou = shared / np.maximum(union, 1)
    iou[a.labels[near_a][:, None] != b.labels[near_b]] = 0
    strength = iou * a.scores[near_a][:, None] * b.scores[near_b]
    return [
        (float(strength[i, j]), (first, int(near_a[i])), (second, int(near_b[j])))
        for i, j in np.argwhere(iou >= min_iou)
    ]


def _joined(parts: Sequence[Part], scene: _Scene) -> JoinedObject | None:
    """The object of some parts; None where another window owns more of it, or nothing is left."""
    boxes = np.stack([scene.found[window].boxes[part] for window, part in parts])
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    mask = _joined_mask(parts, boxes, box, scene)
    owned = {
        number: int(np.count_nonzero(mask[_moved(_shared(_slices(box), _own(scene.windows[number])), box)]))
        for number in scene.owners(box)
    }
    weights = np.array([owned.pop(window, 0) for window, _ in parts])
    if not weights.any() or weights.sum() < max(owned.values(), default=0):
        return None
    scores = np.array([scene.found[window].scores[part] for window, part in parts], np.float64)
    score = float(scores[0]) if len(parts) == 1 else float((scores * weights).sum() / weights.sum())
    label = int(scene.found[parts[0][0]].labels[parts[0][1]])
    return cut_object(parts, label=label, score=score, mask=mask, corner=(int(box[0]), int(box[1])))


def _joined_mask(
    parts: Sequence[Part], boxes: Int[np.ndarray, "N 4"], box: Int[np.ndarray, "4"], scene: _Scene
) -> Bool[np.ndarray, "_ _"]:
    """What the windows of the parts say about their own pixels, and any part about the others; within `box`."""
    mask = np.zeros(box[2:] - box[:2], bool)
    for (window, part), part_box in zip(parts, boxes, strict=True):
        mask[_moved(_slices(part_box), box)] |= scene.found[window].crops[part]
    if len(parts) > 1:
        for window, part in parts:
            mask[_moved(_shared(_slices(box), _own(scene.windows[window])), box)] = False
            place, own = own_part(scene.found[window], part, scene.windows[window])
            mask[_moved(place, box)] = own
    return mask


def _own(window: Window) -> tuple[slice, slice]:
    return window.own_rows, window.own_columns


def _slices(box: Sequence[int] | Int[np.ndarray, "4"]) -> tuple[slice, slice]:
    top, left, bottom, right = map(int, box)
    return slice(top, bottom), slice(left, right)


def _shared(first: tuple[slice, slice], second: tuple[slice, slice]) -> tuple[slice, slice]:
    """Rows and columns of both; empty slices where they have none in common."""
    rows, columns = (
        slice(start := max(a.start, b.start), max(start, min(a.stop, b.stop)))
        for a, b in zip(first, second, strict=True)
    )
    return rows, columns


def _moved(place: tuple[slice, slice], box: Int[np.ndarray, "4"]) -> tuple[slice, slice]:
    """The same place, counted from the upper left corner of a box."""
    rows, columns = place
    return slice(rows.start - box[0], rows.stop - box[0]), slice(columns.start - box[1], columns.stop - box[1])


def _cut(
    crop: Bool[np.ndarray, "_ _"], box: Int[np.ndarray, "4"], place: tuple[slice, slice]
) -> Bool[np.ndarray, "_ _"]:
    return crop[_moved(place, box)]


def _touching(objects: FoundObjects, place: tuple[slice, slice]) -> Int[np.ndarray, "_"]:
    """Numbers of the objects whose box shares pixels with a place."""
    rows, columns = place
    starts = np.maximum(objects.boxes[:, :2], [rows.start, columns.start])
    stops = np.minimum(objects.boxes[:, 2:], [rows.stop, columns.stop])
    return np.flatnonzero((starts < stops).all(1))


def _dense(
    objects: FoundObjects, numbers: Int[np.ndarray, "_"], place: tuple[slice, slice]
) -> Float[np.ndarray, "n P"]:
    """Masks of some objects at the pixels of a place, as numbers."""
    rows, columns = place
    masks = np.zeros((len(numbers), rows.stop - rows.start, columns.stop - columns.start), np.float32)
    for mask, number in zip(masks, numbers, strict=True):
        common = _shared(_slices(objects.boxes[number]), place)
        target = np.array([rows.start, columns.start, 0, 0])
        mask[_moved(common, target)] = _cut(objects.crops[number], objects.boxes[number], common)
    return masks.reshape(len(numbers), -1)
