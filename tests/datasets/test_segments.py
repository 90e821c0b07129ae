"""Numbers of segments in a map."""

import numpy as np
import pytest

from mmseg_m2f.datasets import Segment
from mmseg_m2f.datasets.segments import MOST_SEGMENTS, category_of_number, list_segments, segment_numbers
from mmseg_m2f.structures import IGNORE_INDEX


def test_segment_numbers__skip_void() -> None:
    assert segment_numbers(3).tolist() == [0, 1, 2]
    assert segment_numbers(257).tolist() == [*range(IGNORE_INDEX), IGNORE_INDEX + 1, IGNORE_INDEX + 2]


def test_segment_numbers__stay_within_16_bits() -> None:
    assert segment_numbers(MOST_SEGMENTS)[-1] == np.iinfo(np.int16).max - 1
    with pytest.raises(ValueError, match="at most 32766 segments, got 32767"):
        segment_numbers(MOST_SEGMENTS + 1)


def test_list_segments__each_is_at_its_number() -> None:
    segments = [Segment(index % 7, True, index) for index in range(300)]
    listed = list_segments(segments)
    assert [listed[number] for number in segment_numbers(300)] == segments
    categories = category_of_number(listed)
    assert categories[IGNORE_INDEX] == IGNORE_INDEX
    assert categories[segment_numbers(300)].tolist() == [segment.category for segment in segments]
    assert category_of_number(())[0] == IGNORE_INDEX
