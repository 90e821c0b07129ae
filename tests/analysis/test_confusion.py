import csv

import numpy as np
import pytest

from mmseg_m2f.analysis.confusion import NOTHING, ConfusionCounter, ConfusionMatrix
from mmseg_m2f.analysis.judged_samples import EvaluatedData
from tests.analysis.planted import FOUND, TRUTH
from tests.analysis.test_object_errors import DETECTIONS
from tests.analysis.test_object_errors import sample as objects
from tests.analysis.test_panoptic_errors import SEGMENTS
from tests.analysis.test_panoptic_errors import sample as segments
from tests.analysis.test_semantic_errors import planted
from tests.analysis.test_semantic_errors import sample as pixels

DATA = EvaluatedData(("a", "b", "c"), np.ones(3, dtype=bool), {})


def test_confusion__of_pixels_equals_a_recount() -> None:
    prediction, truth, _ = planted()
    counter = ConfusionCounter("semantic")
    counter(pixels(prediction, truth), EvaluatedData(("a", "b", "c", "d"), np.zeros(4, dtype=bool), {}))
    counts = counter.matrix(("a", "b", "c", "d")).counts
    assert counts.sum() == (truth != 255).sum()
    for true in range(4):
        for found in range(4):
            assert counts[true, found] == ((truth == true) & (prediction == found)).sum()


def test_confusion__of_segments() -> None:
    counter = ConfusionCounter("panoptic")
    counter(segments(SEGMENTS, TRUTH), DATA)
    matrix = counter.matrix(DATA.classes)
    # A is taken for b, J is right; F and I are right; B, C, D, E and H have no partner, nor have B1-B3, CD, E, F2, V.
    assert matrix.names == ["a", "b", "c", NOTHING]
    assert matrix.counts.tolist() == [[2, 1, 0, 5], [0, 1, 0, 0], [0, 0, 0, 0], [7, 0, 0, 0]]


def test_confusion__of_objects_counts_from_a_score_on() -> None:
    counts = {}
    for threshold in (0.0, 0.45):
        counter = ConfusionCounter("instance", score_threshold=threshold)
        counter(objects(DETECTIONS, TRUTH), DATA)
        counts[threshold] = counter.matrix(DATA.classes).counts.tolist()
    assert counts[0.0] == [[2, 1, 0, 5], [0, 1, 0, 0], [0, 0, 0, 0], [7, 0, 0, 0]]
    assert counts[0.45] == [[2, 1, 0, 5], [0, 0, 0, 1], [0, 0, 0, 0], [7, 0, 0, 0]]  # without J
    assert len(FOUND) == 9


MATRIX = ConfusionMatrix(np.array([[90, 10], [0, 50]]), ["sky, blue", "road"], "pixels")


def test_confusion_matrix__csv_is_read_back() -> None:
    rows = list(csv.reader(MATRIX.csv().splitlines()))
    assert rows == [
        ["truth \\ prediction, pixels", "sky, blue", "road"],
        ["sky, blue", "90", "10"],
        ["road", "0", "50"],
    ]


def test_confusion_matrix__names_the_worst() -> None:
    assert MATRIX.worst() == ["sky, blue taken for road: 10 pixels (10.0% of sky, blue)"]


@pytest.mark.parametrize("side", [2, 40])
def test_confusion_matrix__picture_is_darker_where_the_share_is_higher(side: int) -> None:
    matrix = ConfusionMatrix(np.eye(side, dtype=np.int64), [f"class {index}" for index in range(side)], "pixels")
    pixels = np.asarray(matrix.picture())
    assert pixels.ndim == 3
    assert (pixels == (8, 48, 107)).all(-1).any()  # the darkest of "Blues"
