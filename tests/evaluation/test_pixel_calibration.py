import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_m2f.core.confidence import Certainty, fit_class_temperature, image_certainty
from mmseg_m2f.evaluation import PixelCalibration, SemanticIoU
from mmseg_m2f.samples import write_certainty, write_semantic


def sample(found: list, true: list, confidence: list, unknown: list) -> dict:
    """One image of one row."""
    element = SegDataSample(metainfo=dict(img_path="a.png"))
    write_semantic(element, torch.tensor([found]))
    write_certainty(element, Certainty(torch.tensor([confidence]), torch.tensor([unknown])))
    element.gt_sem_seg = PixelData(data=torch.tensor([[true]]))
    return element.to_dict()


def evaluate(samples: list[dict]) -> dict[str, float]:
    metric = PixelCalibration()
    metric.dataset_meta = dict(classes=("sky", "tree", "road"))
    for each in samples:
        metric.process({}, [each])
    return metric.evaluate(len(samples))


def test_pixel_calibration__by_hand():
    first = sample([0, 0, 1, 1], [0, 1, 1, 255], [0.9, 0.9, 0.5, 0.1], [0.1, 0.0, 0.2, 0.9])
    second = sample([0], [0], [0.7], [0.3])
    found = evaluate([first, second])
    # Void counts nowhere; bins: 0.9 twice with one hit, 0.5 and 0.7 with a hit each.
    assert found["calibration_ECE"] == pytest.approx((0.8 + 0.5 + 0.3) / 4)
    # The most confident first: two equal ones, one of them wrong; then right ones.
    assert found["calibration_AURC"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found["calibration_accuracy"] == 0.75
    assert found["calibration_confidence"] == pytest.approx(3.0 / 4)
    assert found["calibration_unknown"] == pytest.approx(0.6 / 4)
    assert found["calibration_ECE.sky"] == pytest.approx((0.8 + 0.3) / 3)
    assert found["calibration_ECE.tree"] == pytest.approx(0.5)
    assert "calibration_ECE.road" not in found
    assert {name for name in found if "." not in name} == set(PixelCalibration.figures)


def test_pixel_calibration__falls_for_a_planted_overconfident_model():
    generator = np.random.default_rng(0)
    known = generator.dirichlet(np.ones(3), (2, 60, 60))
    true = torch.from_numpy((generator.random((2, 60, 60, 1)) > known.cumsum(-1)).sum(-1).clip(max=2))
    sharp = known**4 / (known**4).sum(-1, keepdims=True)
    temperature = fit_class_temperature(sharp[0].reshape(-1, 3), true[0].flatten().numpy())
    errors, ious = [], []
    for used in (1.0, temperature):
        scores = torch.from_numpy(sharp[1]).movedim(-1, 0).float()
        element = SegDataSample(gt_sem_seg=PixelData(data=true[1:]))
        write_semantic(element, scores.argmax(0))
        write_certainty(element, image_certainty(scores, scores.argmax(0), used))
        found = evaluate([element.to_dict()])
        errors.append(found["calibration_ECE"])
        iou = SemanticIoU()
        iou.dataset_meta = dict(classes=("sky", "tree", "road"))
        iou.process({}, [element.to_dict()])
        ious.append(iou.evaluate(1)["mIoU"])
    assert errors[0] > 0.15
    assert errors[1] < 0.03
    assert ious[0] == ious[1]


def test_pixel_calibration__says_what_is_missing():
    element = sample([0], [0], [0.5], [0.0])
    del element["pred_certainty"]
    with pytest.raises(ValueError, match=r"PixelCalibration, a.png: expected 'pred_certainty'.*test_cfg.temperature"):
        evaluate([element])
    with pytest.raises(ValueError, match=r"a.png: expected every label in 0...2, or 255"):
        evaluate([sample([0], [7], [0.5], [0.0])])
    with pytest.raises(ValueError, match="expected labelled pixels, got 1 images without any"):
        evaluate([sample([0], [255], [0.5], [0.0])])
