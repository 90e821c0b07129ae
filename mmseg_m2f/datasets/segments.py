"""Segment maps: which pixel of an image belongs to which of its segments, in a form that transforms can move.

Pixels of no segment, and those that transforms add, hold `IGNORE_INDEX`: no segment has this number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.structures import IGNORE_INDEX

#: As many segments as 16 bits hold; wider integers cannot be rotated by OpenCV.
MOST_SEGMENTS = 32766


class Segment(NamedTuple):
    """One visible thing, all visible pixels of one stuff class, or a crowd of things that nobody separated.

    `area` counts the pixels in the file, before any transform.
    """

    category: int
    is_thing: bool
    area: int
    is_crowd: bool = False


def segment_numbers(count: int) -> NDArray[np.int16]:
    """The numbers of `count` segments in a segment map: 0, 1, 2 and so on without `IGNORE_INDEX`.

    Raises:
        ValueError: More segments than a map can tell apart.
    """
    if count > MOST_SEGMENTS:
        raise InvalidValueError(
            f"A segment map holds at most {MOST_SEGMENTS} segments, got {count}. Cut the image into parts."
        )
    numbers = np.arange(count, dtype=np.int16)
    return numbers + (numbers >= IGNORE_INDEX).astype(np.int16)


def list_segments(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments at the indices that `segment_numbers` gives them; a placeholder of class `IGNORE_INDEX` "
    "fills the gap."""
    if len(segments) <= IGNORE_INDEX:
        return tuple(segments)
    return (*segments[:IGNORE_INDEX], Segment(IGNORE_INDEX, False, 0), *segments[IGNORE_INDEX:])


def category_of_number(segments: Sequence[Segment]) -> NDArray[np.int64]:
    """The class of every number in a segment map, `IGNORE_INDEX` where no segment has the number."""
    categories = np.full(max(len(segments), IGNORE_INDEX + 1), IGNORE_INDEX, dtype=np.int64)
    categories[: len(segments)] = [segment.category for segment in segments]
    return categories
