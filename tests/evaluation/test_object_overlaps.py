import numpy as np
import pytest

from mmseg_m2f.evaluation.object_overlaps import object_ious, read_objects
from tests.evaluation.object_samples import bar, object_sample

SIZE = (1, 20)


def overlaps(detections: list, objects: list, crowds: list = (), *, boundary: bool = False) -> np.ndarray:
    sample = object_sample(detections, objects, crowds, size=SIZE)
    return object_ious(*read_objects(sample, 3, where="x"), boundary=boundary)


def test_object_ious__by_hand() -> None:
    """6 of 10 pixels in common; other classes share nothing."""
    detections = [(0, 0.9, bar(0, 8)), (1, 0.8, bar(0, 8)), (0, 0.7, bar(0, 0))]
    assert overlaps(detections, [(0, bar(2, 10)), (0, bar(0, 0))]).tolist() == [[0.6, 0], [0, 0], [0, 0]]


def test_object_ious__of_a_crowd_is_the_share_within() -> None:
    assert overlaps([(0, 0.9, bar(0, 8))], [(0, bar(0, 16))], [(0, bar(4, 20))]).tolist() == [[0.5, 0.5]]


def test_object_ious__boundary_is_the_smaller() -> None:
    """In one row every pixel is at the boundary, so that both are the same."""
    arguments = [(0, 0.9, bar(0, 8))], [(0, bar(2, 10))]
    assert overlaps(*arguments, boundary=True).tolist() == overlaps(*arguments).tolist() == [[0.6]]


def test_read_objects__objects_then_crowds() -> None:
    detected, true = read_objects(
        object_sample([(2, 0.5, bar(0, 3))], [(1, bar(0, 4))], [(0, bar(5, 9))], size=SIZE), 3, where="x"
    )
    assert (detected.labels.tolist(), detected.scores.tolist(), detected.masks.areas().tolist()) == ([2], [0.5], [3])
    assert (true.labels.tolist(), true.is_crowd.tolist(), true.masks.areas().tolist()) == (
        [1, 0],
        [False, True],
        [4, 4],
    )


@pytest.mark.parametrize(
    ("detections", "objects", "what"), [([(3, 1.0, bar(0, 2))], [], "predicted"), ([], [(-1, bar(0, 2))], "true")]
)
def test_read_objects__classes_out_of_range(detections: list, objects: list, what: str) -> None:
    with pytest.raises(ValueError, match=rf"x: expected {what} objects of classes 0…2, got \[(3|-1)\]"):
        read_objects(object_sample(detections, objects, size=SIZE), 3, where="x")
