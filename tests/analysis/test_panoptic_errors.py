import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from mmseg_m2f.analysis.error_table import ERROR_KINDS
from mmseg_m2f.analysis.judged_samples import EvaluatedData
from mmseg_m2f.analysis.panoptic_errors import PanopticErrors
from mmseg_m2f.evaluation import PanopticQuality
from tests.analysis.planted import FOUND, LENGTH, TRUTH, mended, span

CLASSES = ("a", "b", "c")
DATA = EvaluatedData(CLASSES, np.ones(3, dtype=bool), {})
# Segments of a map do not overlap: F is found with a quarter missing, which another segment has.
SEGMENTS = FOUND | dict(F=(0, 52, 61), F2=(0, 61, 64))


def sample(found: dict, truth: dict) -> dict:
    prediction = torch.full((1, LENGTH), len(CLASSES))
    for number, entry in enumerate(found.values(), start=1):
        prediction[torch.from_numpy(span(entry))] = entry[0] + 1000 * number
    element = DetDataSample(metainfo=dict(img_path="a.png", img_shape=(1, LENGTH)))
    element.pred_panoptic_seg = PixelData(sem_seg=prediction[None])
    element.gt_instances = InstanceData(
        labels=torch.tensor([entry[0] for entry in truth.values()]),
        masks=torch.from_numpy(np.stack([span(entry) for entry in truth.values()])),
    )
    return element.to_dict()


def table(*samples: dict):
    errors = PanopticErrors()
    for each in samples:
        errors(each, DATA)
    return errors.table()


def recounted_pq(found: dict, truth: dict) -> float:
    """PQ of masks that may overlap, from its definition."""
    qualities = []
    for label in range(len(CLASSES)):
        own = [span(entry) for entry in found.values() if entry[0] == label]
        true = [span(entry) for entry in truth.values() if entry[0] == label]
        ious = [[(a & b).sum() / (a | b).sum() for b in true] for a in own]
        matched = [iou for row in ious for iou in row if iou > 0.5]
        weight = len(matched) + (len(own) - len(matched)) / 2 + (len(true) - len(matched)) / 2
        if weight:
            qualities.append(sum(matched) / weight)
    return sum(qualities) / len(qualities)


def test_panoptic_errors__finds_each_planted_fault() -> None:
    counts = {row.kind: row.count for row in table(sample(SEGMENTS, TRUTH)).rows}
    assert counts == {**dict.fromkeys(ERROR_KINDS, 1), "boundary": 2}  # E below, F above an IoU of one half


def test_panoptic_errors__value_is_that_of_the_metric() -> None:
    metric = PanopticQuality(thing_classes=(0, 1, 2))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, [sample(SEGMENTS, TRUTH)])
    found = table(sample(SEGMENTS, TRUTH)).value
    assert found == pytest.approx(metric.evaluate(size=1)["PQ"], abs=1e-12)
    assert found == pytest.approx(recounted_pq(SEGMENTS, TRUTH), abs=1e-12)


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_panoptic_errors__mended_metric_equals_a_recount(kind: str) -> None:
    rows = {row.kind: row.mended for row in table(sample(SEGMENTS, TRUTH)).rows}
    assert rows[kind] == pytest.approx(recounted_pq(mended(kind, SEGMENTS), TRUTH), abs=1e-12)


def test_panoptic_errors__a_merge_with_a_partner_is_cut() -> None:
    truth = dict(large=(0, 0, 10), small=(0, 10, 14))
    found = table(sample(dict(both=(0, 0, 14)), truth))
    rows = {row.kind: (row.count, row.mended) for row in found.rows}
    assert rows["merge"] == (1, pytest.approx(1.0))
    assert rows["missed"][0] == 0


def test_panoptic_errors__absent_segments_are_missed() -> None:
    judged = sample(dict(I=TRUTH["I"]), dict(I=TRUTH["I"]))
    rows = {row.kind: row for row in table(judged | dict(absent_segments=[2])).rows}
    assert (rows["missed"].count, rows["missed"].mended) == (1, 1.0)


def test_panoptic_errors__of_several_images_add_up() -> None:
    clean = sample(TRUTH, TRUTH)
    found = table(sample(SEGMENTS, TRUTH), clean)
    assert {row.kind: row.count for row in found.rows}["boundary"] == 2
    assert found.value > table(sample(SEGMENTS, TRUTH)).value
