import pytest

from mmseg_m2f.benchmark.heads.scores import check_scores, counts_percent, scores_of


def test_scores__any_metric_becomes_a_fraction():
    metrics = {"coco/segm_mAP": 0.25, "coco/bbox_mAP": 0.5, "coco/segm_mAP_50": 0.9, "mIoU": 0.75}
    assert scores_of(metrics, in_percent=False) == {"mask AP": 0.25, "box AP": 0.5, "mIoU": 0.75}
    assert scores_of({"coco_panoptic/PQ": 42.0}, in_percent=True) == {"PQ": 0.42}
    assert scores_of({"loss": 1.0}, in_percent=False) == {}


@pytest.mark.parametrize(
    ("evaluator", "expected"),
    [
        (dict(type="mmseg_m2f.SemanticIoU"), False),
        (dict(type="IoUMetric"), True),
        ([dict(type="mmdet.CocoMetric"), dict(type="mmdet.CocoPanopticMetric")], True),
        (None, False),
    ],
)
def test_scores__whose_metrics_are_percent(evaluator, expected):
    assert counts_percent(evaluator) is expected


def test_check_scores__names_what_the_report_has():
    check_scores({"coco/PQ": 1.0}, source="a.py")
    with pytest.raises(ValueError, match=r"a.py: expected one of mIoU, .* got accuracy. Add mmseg_m2f.SemanticIoU"):
        check_scores({"accuracy": 1.0}, source="a.py")
