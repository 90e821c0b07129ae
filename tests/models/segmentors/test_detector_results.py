import pytest
import torch

from mmseg_m2f.core.strips import Resizing
from mmseg_m2f.models.segmentors.detector_results import QueryOutputs, checked_test_cfg, detector_results

IS_THING = torch.tensor([True, False])


def outputs() -> QueryOutputs:
    """Two images of 2×2 pixels with a thing on the left and stuff on the right."""
    class_logits = torch.tensor([[9.0, 0, 0], [0, 9, 0]]).expand(2, 2, 3)
    left = torch.tensor([[9.0, -9], [9, -9]])
    return QueryOutputs(class_logits, torch.stack([left, -left]).expand(2, 2, 2, 2))


def test_detector_results__as_asked():
    resizing = Resizing((2, 2), (2, 2), (2, 2))
    results = detector_results(outputs(), resizing, IS_THING, num_things=1, cfg=checked_test_cfg(None))
    assert len(results) == 2
    assert results[0].panoptic.tolist() == [[1000, 1], [1000, 1]]
    assert results[0].labels is None
    best = results[0].instances.scores.argmax()
    assert results[0].instances.masks[best].tolist() == [[True, False], [True, False]]


def test_query_outputs__masks_are_required():
    with pytest.raises(ValueError, match="the decoder predicts boxes alone"):
        QueryOutputs(outputs().class_logits).required_masks()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(panoptic_rule="voc"), "expected one of"),
        (dict(mode="slide", crop_size=(8, 8), stride=(4, 4), soft_masks=True), "soft_masks=False with mode='slide'"),
        (dict(min_iou=0), "expected an IoU in"),
    ],
)
def test_checked_test_cfg__refused(settings, message):
    with pytest.raises(ValueError, match=message):
        checked_test_cfg(settings)
