"""One annotation, every task: segments to objects or labels, objects and labels to segments."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from mmseg_m2f.datasets.segments import Segment, category_of_number, list_segments, segment_numbers
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.registry import TRANSFORMS
from mmseg_m2f.structures import IGNORE_INDEX


@TRANSFORMS.register_module()
class SegmentsToObjects(BaseTransform):
    """Splits a segment map into the masks of things and a semantic map; belongs right before `mmdet.PackDetInputs`.

    Reads `gt_seg_map` (H W, index into `segments`, 255 void) and `segments`. Adds `gt_masks` (tensor G H W, one per
    thing that is still visible), `gt_bboxes_labels` (G), `gt_ignore_flags` (true for crowds) and `stuff_classes` (those
    that are visible); `gt_seg_map` becomes the semantic map with void 255, in which crowds have their class.

    Args:
        thing_classes: For a model of things alone: these classes become objects, numbered anew in this order, and
            all other segments are background, also in `absent_segments`. There is no semantic map then.
        ignore_void: With `thing_classes`: void becomes one more object, of class -1 and with the ignore flag, so that
            training leaves it out. False for evaluation, where such an object would be a crowd, and where void is but
            a line around each object, over which masks would grow.
    """

    def __init__(self, thing_classes: Sequence[int] | None = None, *, ignore_void: bool = True) -> None:
        self.thing_classes = None if thing_classes is None else tuple(thing_classes)
        self.ignore_void = ignore_void

    def transform(self, results: dict) -> dict:
        """The sample with objects and semantic map instead of the segment map."""
        segment_map, segments = results["gt_seg_map"], results["segments"]
        present = np.unique(segment_map)
        things = [number for number in present[present < len(segments)] if segments[number].is_thing]
        if self.thing_classes is not None:
            things = [number for number in things if segments[number].category in self.thing_classes]
        labels = [segments[number].category for number in things]
        stuff = (segments[number] for number in present[present < len(segments)] if not segments[number].is_thing)
        results["stuff_classes"] = tuple(sorted({segment.category for segment in stuff}))
        ignored = [segments[number].is_crowd for number in things]
        if self.thing_classes is None:
            results["gt_seg_map"] = category_of_number(segments)[segment_map]
        else:
            labels = [self.thing_classes.index(label) for label in labels]
            del results["gt_seg_map"]
            absent = [c for c in results.get("absent_segments", ()) if c in self.thing_classes]
            results["absent_segments"] = tuple(map(self.thing_classes.index, absent))
            if self.ignore_void and IGNORE_INDEX in present:
                things, labels, ignored = [*things, IGNORE_INDEX], [*labels, -1], [*ignored, True]
        masks = segment_map == np.asarray(things, dtype=segment_map.dtype)[:, None, None]
        results["gt_masks"] = torch.from_numpy(masks)
        results["gt_bboxes_labels"] = np.asarray(labels, dtype=np.int64)
        results["gt_ignore_flags"] = np.asarray(ignored, dtype=bool)
        return results


@TRANSFORMS.register_module()
class SegmentsToLabels(BaseTransform):
    """Turns a segment map into a semantic map, for a model of semantic segmentation; belongs right after the loading.

    Reads `gt_seg_map` (H W, index into `segments`, 255 void) and `segments`; `gt_seg_map` becomes the class of each
    pixel (uint8, void 255). Crowds have their class.
    """

    def transform(self, results: dict) -> dict:
        """The sample with a semantic map instead of the segment map."""
        categories = category_of_number(results.pop("segments")).astype(np.uint8)
        results["gt_seg_map"] = categories[results["gt_seg_map"]]
        return results


@TRANSFORMS.register_module()
class ObjectsToSegments(BaseTransform):
    """Merges objects and a semantic map into a segment map; belongs right after their loading.

    Reads `gt_masks` (G H W, mmdet's bitmaps or a tensor), `gt_bboxes_labels`, `gt_ignore_flags` if there, and
    `gt_seg_map` (H W, classes, 255 void); gives `gt_seg_map` (H W, index into `segments`, 255 void) and `segments`.
    Where objects overlap, the pixel belongs to the smallest, an object before any crowd. Objects cover stuff. What the
    semantic map calls a thing but no object covers is void: nobody knows which object it is.

    Args:
        thing_classes: The class, in the semantic map's numbers, of each object label: label i is class
            `thing_classes[i]`.

    Raises:
        ValueError: The sizes differ, or an object label has no class.
    """

    def __init__(self, thing_classes: Sequence[int]) -> None:
        self.thing_classes = tuple(thing_classes)

    def transform(self, results: dict) -> dict:
        """The sample with a segment map instead of objects and semantic map."""
        semantic, masks = results["gt_seg_map"], results.pop("gt_masks")
        masks = np.asarray(getattr(masks, "masks", masks)).astype(bool)
        labels = results.pop("gt_bboxes_labels")
        crowds = np.asarray(results.pop("gt_ignore_flags", np.zeros(len(labels), dtype=bool)))
        results.pop("gt_bboxes", None)
        self._check(labels, masks, results)
        segments: list[Segment] = []
        number_map = np.full(semantic.shape, -1, dtype=np.int64)
        for category in np.unique(semantic):
            if category != IGNORE_INDEX and category not in self.thing_classes:
                number_map[semantic == category] = len(segments)
                segments.append(Segment(int(category), False, 0))
        # From the one that gives way everywhere to the one that is covered nowhere.
        for index in np.lexsort((-masks.sum((1, 2)), ~crowds)):
            number_map[masks[index]] = len(segments)
            segments.append(Segment(self.thing_classes[labels[index]], True, 0, bool(crowds[index])))
        results["gt_seg_map"], results["segments"] = finish_segments(number_map, segments)
        return results

    def _check(self, labels: NDArray[np.integer], masks: NDArray[np.bool_], results: dict) -> None:
        image = results.get("img_path")
        if len(labels) and labels.max() >= len(self.thing_classes):
            raise InvalidValueError(
                f"ObjectsToSegments, image {image}: expected object labels 0…{len(self.thing_classes) - 1}, got "
                f"{int(labels.max())}. Give thing_classes one class for each object label of the data set."
            )
        if masks.shape[1:] != results["gt_seg_map"].shape:
            raise InvalidValueError(
                f"ObjectsToSegments, image {image}: the masks are {masks.shape[1]} x {masks.shape[2]} (height x "
                f"width), but the label {results.get('seg_map_path')} is {results['gt_seg_map'].shape}; expected the "
                "same size. Load both from files of the image's size, before any resizing."
            )


def finish_segments(
    number_map: NDArray[np.integer], segments: Sequence[Segment]
) -> tuple[NDArray[np.int16], tuple[Segment, ...]]:
    """A segment map and its list from a map of indices into `segments`, with -1 for void.

    Segments of class `IGNORE_INDEX` become void, those without a pixel are left out; the areas are counted.
    """
    areas = np.bincount(number_map.ravel() + 1, minlength=len(segments) + 1)[1:]
    visible = [index for index, segment in enumerate(segments) if areas[index] and segment.category != IGNORE_INDEX]
    new_numbers = np.full(len(segments) + 1, IGNORE_INDEX, dtype=np.int16)  # the last entry serves the index -1
    new_numbers[visible] = segment_numbers(len(visible))
    kept = [segments[index]._replace(area=int(areas[index])) for index in visible]
    return new_numbers[number_map], list_segments(kept)
