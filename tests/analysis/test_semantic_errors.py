import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_m2f.analysis.error_table import ErrorTable
from mmseg_m2f.analysis.judged_samples import EvaluatedData
from mmseg_m2f.analysis.semantic_errors import SemanticErrors, pixel_errors
from mmseg_m2f.evaluation import SemanticIoU

CLASSES = ("a", "b", "c", "d")
DATA = EvaluatedData(CLASSES, np.zeros(4, dtype=bool), {})
BOUNDARY, MISSED, VOID, CLASS = "boundary", "missed", "void", "class"


def planted() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Prediction, truth, and where the faults of each kind are; boundaries are 3 pixels wide at this size."""
    truth = np.zeros((100, 100), dtype=np.int64)
    truth[:, 50:] = 1
    truth[60:80, 10:30] = 2
    truth[0, 0] = 255
    prediction = truth.copy()
    prediction[0, 0] = 3
    faults = {kind: np.zeros(truth.shape, dtype=bool) for kind in (BOUNDARY, MISSED, VOID, CLASS)}
    prediction[60:80, 10:30] = 0  # class 2 is predicted nowhere
    faults[MISSED][63:77, 13:27] = True
    faults[BOUNDARY][60:80, 10:30] = ~faults[MISSED][60:80, 10:30]
    prediction[10:20, 50:52] = 0
    faults[BOUNDARY][10:20, 50:52] = True
    prediction[30:40, 70:80] = 3  # class 3 is nowhere in the truth
    faults[VOID][30:40, 70:80] = True
    prediction[90:, 90:] = 0  # at the border of the image, which is none between labels
    faults[CLASS][90:, 90:] = True
    return prediction, truth, faults


def sample(prediction: np.ndarray, truth: np.ndarray) -> dict:
    element = SegDataSample(metainfo=dict(img_path="a.png"))
    element.pred_sem_seg = PixelData(data=torch.from_numpy(prediction)[None])
    element.gt_sem_seg = PixelData(data=torch.from_numpy(truth)[None])
    return element.to_dict()


def table(*samples: dict) -> ErrorTable:
    errors = SemanticErrors()
    for each in samples:
        errors(each, DATA)
    return errors.table()


def mean_iou(judged: dict) -> float:
    metric = SemanticIoU()
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, [judged])
    return metric.evaluate(size=1)["mIoU"]


def test_pixel_errors__are_where_they_were_planted() -> None:
    prediction, truth, faults = planted()
    found = pixel_errors(prediction, truth)
    assert {kind: np.array_equal(found[kind], faults[kind]) for kind in faults} == dict.fromkeys(faults, True)


@pytest.mark.parametrize("kind", [BOUNDARY, MISSED, VOID, CLASS])
def test_semantic_errors__mended_metric_equals_a_recount(kind: str) -> None:
    prediction, truth, faults = planted()
    found = table(sample(prediction, truth))
    assert found.value == pytest.approx(mean_iou(sample(prediction, truth)), abs=1e-12)
    row = next(row for row in found.rows if row.kind == kind)
    assert row.count == faults[kind].sum()
    mended = np.where(faults[kind], truth, prediction)
    assert row.mended == pytest.approx(mean_iou(sample(mended, truth)), abs=1e-12)


def test_semantic_errors__all_mended_is_everything() -> None:
    prediction, truth, faults = planted()
    assert (np.where(sum(faults.values()) > 0, truth, prediction) == truth)[truth != 255].all()
