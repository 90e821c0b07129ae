"""Checking polygons and run lengths of COCO files before pycocotools draws them, which checks nothing itself.

Run lengths that do not cover the image leave uninitialised memory in the mask there, and coordinates that are not
finite or very large end the process.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from mmseg_m2f.errors import InvalidValueError

#: Polygons, or run lengths with `size` and `counts`.
CocoMask: TypeAlias = list | Mapping
#: Left, top, right, bottom in pixels.
Box: TypeAlias = tuple[float, float, float, float]

_LARGEST = 1e9  # of a coordinate or run: nothing beyond is in pixels, nor is NaN
_ROOM = 0.5  # of the image's side: polygons that leave the image by more are those of another image
_CODE_START = 48  # character of COCO's compressed run lengths that stands for 0
_CODE_BITS, _SIGN, _MORE = 5, 0x10, 0x20
_MOST_CODES = 6  # characters of one run: 30 bits


def check_mask(mask: object, size: tuple[int, int], place: str) -> tuple[CocoMask, Box] | None:
    """The mask of an annotation and the box around it; None where there is no polygon of three points or more.

    Args:
        size: Height and width of the image.
        place: How messages begin.

    Raises:
        ValueError: It is neither a list of polygons nor run lengths; a coordinate is not finite, far outside of the
            image or a fraction of it; or the run lengths are not those of H · W pixels.
    """
    if isinstance(mask, Mapping):
        return mask, _box_of_runs(_read_runs(mask, size, place), size)
    if not isinstance(mask, list) or any(not isinstance(part, list) or len(part) % 2 for part in mask):
        raise InvalidValueError(
            f"{place}: expected segmentation as a list of polygons [[x1, y1, x2, y2, ...], ...] or run lengths, got "
            f"{str(mask)[:60]}. Write each polygon as a list of its own, with as many x as y."
        )
    polygons = [part for part in mask if len(part) >= 6]
    if not polygons:
        return None
    box = _box_of_points(_read_points(polygons, place))
    _check_box(box, size, place)
    return polygons, box


def check_points(points: list, size: tuple[int, int], place: str) -> None:
    """Refuse points [x1, y1, x2, y2, ...] that cannot be those of an image of that height and width, in pixels.

    Raises:
        ValueError: A coordinate is not finite, far outside of the image or, as all others, a fraction of it.
    """
    _check_box(_box_of_points(_read_points([points], place)), size, place)


def _read_points(polygons: Sequence[list], place: str) -> Float[np.ndarray, "N 2"]:
    values = [*chain.from_iterable(polygons)]
    if set(map(type, values)) <= {int, float}:
        try:
            points = np.asarray(values, dtype=np.float64)
        except OverflowError:  # integers beyond all floats
            points = np.full(len(values), np.inf)
        if np.abs(points).max() < _LARGEST:  # neither is NaN
            return points.reshape(-1, 2)
    wrong = next(value for value in values if type(value) not in (int, float) or not abs(value) < _LARGEST)
    raise InvalidValueError(
        f"{place}: expected finite numbers as the coordinates of polygons, got {str(wrong)[:40]}. Correct or remove "
        "the polygon."
    )


def _box_of_points(points: Float[np.ndarray, "N 2"]) -> Box:
    left, top = points.min(0).tolist()
    right, bottom = points.max(0).tolist()
    return (left, top, right, bottom)


def _check_box(box: Box, size: tuple[int, int], place: str) -> None:
    """Raise where polygons with this box around them cannot be those of an image of this size in pixels."""
    height, width = size
    left, top, right, bottom = box
    if min(left / width, top / height) < -_ROOM or max(right / width, bottom / height) > 1 + _ROOM:
        raise InvalidValueError(
            f"{place}: expected polygons within the image (x 0…{width}, y 0…{height}; what leaves it by up to half a "
            f"side is cut off), got some from {left, top} to {right, bottom}. Check that the annotation is that of "
            "this image, in its size."
        )
    if min(left, top) >= 0 and max(right, bottom) <= 1 and min(size) > 2:
        raise InvalidValueError(
            f"{place}: expected polygons in pixels, got coordinates between 0 and 1, which look like fractions of the "
            "image. Multiply x by its width and y by its height, or remove the polygon."
        )


def _read_runs(mask: Mapping, size: tuple[int, int], place: str) -> Int[np.ndarray, "N"]:
    """Lengths of the runs outside and inside in turn, down the columns."""
    missing = [key for key in ("size", "counts") if key not in mask]
    if missing:
        raise InvalidValueError(
            f"{place}, segmentation: expected run lengths with size and counts, got {sorted(map(str, mask))} without "
            f"{', '.join(missing)}. Add what is missing."
        )
    if mask["size"] != [*size]:
        raise InvalidValueError(
            f"{place}: expected run lengths of the image's size (height, width) {[*size]}, got {mask['size']}. Encode "
            "the mask anew from one of that size, or correct height and width of the image."
        )
    counts = mask["counts"]
    runs = _decode_runs(counts) if isinstance(counts, str) else None
    if isinstance(counts, list) and all(type(count) is int and abs(count) < _LARGEST for count in counts):
        runs = np.asarray(counts, dtype=np.int64)
    pixels = size[0] * size[1]
    if runs is None or (runs < 0).any() or runs.sum() != pixels:
        total = "others" if runs is None else "negative ones" if (runs < 0).any() else f"a sum of {runs.sum()}"
        raise InvalidValueError(
            f"{place}: expected run lengths, as a list of integers or COCO's string, that sum up to the {pixels} "
            f"pixels of the image, got {total}. Encode the mask anew."
        )
    return runs


def _decode_runs(text: str) -> Int[np.ndarray, "N"] | None:
    """The run lengths in a string of COCO; None where it is none.

    Characters hold 5 bits each, low ones first, with a flag for more to come; from the fourth on a run is the
    difference to the last but one.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64) - _CODE_START
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or codes[-1] & _MORE:
        return None
    last = np.flatnonzero((codes & _MORE) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MOST_CODES:
        return None
    shifts = _CODE_BITS * (np.arange(len(codes)) - np.repeat(first, lengths))
    values = np.add.reduceat((codes & (_MORE - 1)) << shifts, first)
    values = np.where(codes[last] & _SIGN, values - (1 << (_CODE_BITS * lengths)), values)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def _box_of_runs(runs: Int[np.ndarray, "N"], size: tuple[int, int]) -> Box:
    """Left, top, right, bottom around the pixels inside; zeros where there is none."""
    stops = runs.cumsum()[1::2]
    starts = stops - runs[1::2]
    starts, stops = starts[stops > starts], stops[stops > starts]
    if not len(starts):
        return (0.0, 0.0, 0.0, 0.0)
    height = size[0]
    left, right = starts[0] // height, (stops[-1] - 1) // height + 1
    crosses = starts // height != (stops - 1) // height  # from the foot of a column to the head of the next
    top = 0 if crosses.any() else (starts % height).min()
    bottom = height if crosses.any() else ((stops - 1) % height).max() + 1
    return (float(left), float(top), float(right), float(bottom))
