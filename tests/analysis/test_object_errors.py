import numpy as np
import pytest

from mmseg_m2f.analysis.error_table import ERROR_KINDS, ErrorTable
from mmseg_m2f.analysis.judged_samples import EvaluatedData
from mmseg_m2f.analysis.object_errors import ObjectErrors
from mmseg_m2f.evaluation import MaskAP
from tests.analysis.planted import FOUND, LENGTH, TRUTH, mended, span
from tests.evaluation.object_samples import object_sample

CLASSES = ("a", "b", "c")
DATA = EvaluatedData(CLASSES, np.ones(3, dtype=bool), {})
DETECTIONS = FOUND | dict(F=(0, 52, 64), F2=(0, 52, 63))
SCORES = dict(F=0.95, A=0.9, I=0.85, B1=0.8, B2=0.7, B3=0.65, CD=0.6, E=0.5, F2=0.88, V=0.75, J=0.2)
SCORES |= dict(B=SCORES["B1"], C=SCORES["CD"], D=SCORES["CD"])  # of what is mended


def sample(found: dict, truth: dict, crowds: list = ()) -> dict:
    detections = [(entry[0], SCORES[name], span(entry)) for name, entry in found.items()]
    return object_sample(detections, [(e[0], span(e)) for e in truth.values()], crowds, size=(1, LENGTH))


def table(*samples: dict) -> ErrorTable:
    errors = ObjectErrors()
    for each in samples:
        errors(each, DATA)
    return errors.table()


def average_precision(judged: dict) -> float:
    metric = MaskAP()
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, [judged])
    return metric.evaluate(size=1)["AP"]


def test_object_errors__finds_each_planted_fault() -> None:
    counts = {row.kind: row.count for row in table(sample(DETECTIONS, TRUTH)).rows}
    assert counts == dict.fromkeys(ERROR_KINDS, 1)


def test_object_errors__value_is_that_of_the_metric() -> None:
    assert table(sample(DETECTIONS, TRUTH)).value == average_precision(sample(DETECTIONS, TRUTH))


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_object_errors__mended_metric_equals_a_recount(kind: str) -> None:
    rows = {row.kind: row.mended for row in table(sample(DETECTIONS, TRUTH)).rows}
    right, truth = mended(kind, DETECTIONS), dict(TRUTH)
    if kind == "missed":  # what nothing finds has no score: it leaves the truth
        right, truth = DETECTIONS, {name: entry for name, entry in TRUTH.items() if name != "H"}
    assert rows[kind] == pytest.approx(average_precision(sample(right, truth)), abs=1e-12)
    assert rows[kind] >= table(sample(DETECTIONS, TRUTH)).value


def test_object_errors__detections_on_a_crowd_are_none() -> None:
    crowd = [(0, span((0, 60, 75)))]
    rows = {row.kind: row.count for row in table(sample(dict(V=FOUND["V"]), dict(I=TRUTH["I"]), crowd)).rows}
    assert (rows["void"], rows["missed"]) == (0, 1)


def test_object_errors__without_detections_all_is_missed() -> None:
    found = table(sample({}, TRUTH))
    assert {row.kind: row.count for row in found.rows if row.count} == dict(missed=len(TRUTH))
    assert found.value == 0
