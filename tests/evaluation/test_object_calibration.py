import numpy as np
import pytest
import torch

from mmseg_m2f.core.confidence import temper_scores
from mmseg_m2f.evaluation import MaskAP, ObjectCalibration
from tests.evaluation.object_samples import bar, object_sample

SIZE = (1, 20)
#: Class 0: found; a duplicate; missed by IoU 0.4. Class 1: found by IoU 0.5; on a crowd.
DETECTIONS = [
    (0, 0.9, bar(0, 4)),
    (0, 0.8, bar(0, 4)),
    (0, 0.3, bar(5, 7)),
    (1, 0.6, bar(10, 12)),
    (1, 0.7, bar(15, 18)),
]
OBJECTS = [(0, bar(0, 4)), (0, bar(5, 10)), (1, bar(10, 14))]
CROWDS = [(1, bar(14, 20))]


def sample(temperature: float | None = 1.0) -> dict:
    element = object_sample(DETECTIONS, OBJECTS, CROWDS, size=SIZE)
    if temperature is not None:
        instances = element["pred_instances"]
        confidences = temper_scores(torch.tensor([d[1] for d in DETECTIONS]), temperature)
        if isinstance(instances, dict):
            instances["confidences"] = confidences
        else:
            instances.confidences = confidences
    return element


def evaluate(metric: MaskAP | ObjectCalibration, samples: list[dict]) -> dict[str, float]:
    metric.dataset_meta = dict(classes=("cat", "dog", "cow"))
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_object_calibration__by_hand():
    found = evaluate(ObjectCalibration(), [sample()])
    # Four count: 0.9 right, 0.8 wrong, 0.6 right, 0.3 wrong; each in a bin of its own.
    assert found["object_calibration_ECE"] == pytest.approx((0.1 + 0.8 + 0.4 + 0.3) / 4)
    assert found["object_calibration_AURC"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert found["object_calibration_accuracy"] == 0.5
    assert found["object_calibration_confidence"] == pytest.approx(2.6 / 4)
    assert found["object_calibration_ECE.cat"] == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    assert found["object_calibration_ECE.dog"] == pytest.approx(0.4)
    assert "object_calibration_ECE.cow" not in found
    assert {name for name in found if "." not in name} == set(ObjectCalibration.figures)


def test_object_calibration__temperature_leaves_matching_order_and_ap():
    plain, tempered = (evaluate(ObjectCalibration(), [sample(t)]) for t in (1.0, 3.0))
    assert tempered["object_calibration_confidence"] != plain["object_calibration_confidence"]
    assert tempered["object_calibration_AURC"] == pytest.approx(plain["object_calibration_AURC"])
    assert evaluate(MaskAP(), [sample(3.0)]) == evaluate(MaskAP(), [sample(None)])


def test_object_calibration__equal_confidences_are_matched_in_the_order_of_scores():
    # Both become 1 at this temperature; the second has the higher score and the object.
    detections = [(0, 0.9999, bar(0, 3)), (0, 0.99999, bar(0, 4))]
    element = object_sample(detections, [(0, bar(0, 4))], size=SIZE)
    confidences = temper_scores(torch.tensor([0.9999, 0.99999]), 0.1)
    assert confidences.tolist() == [1.0, 1.0]
    element["pred_instances"] = dict(element["pred_instances"]) | dict(confidences=confidences)
    found = evaluate(ObjectCalibration(), [element])
    assert found["object_calibration_accuracy"] == 0.5


def test_object_calibration__says_what_is_missing():
    with pytest.raises(
        ValueError, match=r"ObjectCalibration, a/b.png: expected 'pred_instances' with confidences.*test_cfg"
    ):
        evaluate(ObjectCalibration(), [sample(None)])
    empty = object_sample([], OBJECTS, size=SIZE)
    empty["pred_instances"] = dict(empty["pred_instances"]) | dict(confidences=torch.zeros(0))
    with pytest.raises(ValueError, match="expected detected objects, got 1 images without any"):
        evaluate(ObjectCalibration(), [empty])
    assert np.isfinite([*evaluate(ObjectCalibration(), [sample(), empty]).values()]).all()
