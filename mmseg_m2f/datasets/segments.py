"""Segment maps: which pixel of an image belongs to which of its segments, in a form that transforms can move."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Void in segment maps and label maps: what transforms fill new pixels with. No segment has this number.
VOID = 255
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
    """The numbers of `count` segments in a segment map: 0, 1, 2 and so on without `VOID`.

    Raises:
        ValueError: More segments than a map can tell apart.
    """
    if count > MOST_SEGMENTS:
        raise ValueError(
            f"A segment map holds at most {MOST_SEGMENTS} segments, got {count}. Cut the image into parts."
        )
    numbers = np.arange(count, dtype=np.int16)
    return numbers + (numbers >= VOID).astype(np.int16)


def list_segments(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The segments at the places that `segment_numbers` gives them; a placeholder of class `VOID` fills the gap."""
    if len(segments) <= VOID:
        return tuple(segments)
    return (*segments[:VOID], Segment(VOID, False, 0), *segments[VOID:])


def category_of_number(segments: Sequence[Segment]) -> NDArray[np.int64]:
    """The class of every number in a segment map, `VOID` where no segment has the number."""
    categories = np.full(max(len(segments), VOID + 1), VOID, dtype=np.int64)
    categories[: len(segments)] = [segment.category for segment in segments]
    return categories
