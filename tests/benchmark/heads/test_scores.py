import pytest

from mmseg_m2f.benchmark.heads.scores import check_evaluator, check_scores, scores_of

COCO = dict(type="mmdet.CocoMetric", metric=["bbox", "segm"])
PANOPTIC = dict(type="mmdet.CocoPanopticMetric")


def found(metrics: dict, *evaluator: dict) -> dict:
    return scores_of(metrics, list(evaluator), scope="mmseg")


def test_scores__each_metric_has_its_own_unit():
    metrics = {"coco_panoptic/PQ": 51.9, "coco/segm_mAP": 0.417, "coco/bbox_mAP": 0.447, "coco/segm_mAP_50": 0.9}
    expected = {"PQ": pytest.approx(0.519), "mask AP": 0.417, "box AP": 0.447}
    assert found(metrics, PANOPTIC, COCO) == found(metrics, COCO, PANOPTIC) == expected
    several = dict(type="mmdet.MultiDatasetsEvaluator", metrics=[COCO, PANOPTIC], dataset_prefixes=["a", "b"])
    assert scores_of({f"a/{name}": value for name, value in metrics.items()}, several, scope="mmdet") == expected


def test_scores__metrics_that_share_a_name():
    percent = dict(type="IoUMetric", prefix="mmseg")
    ours = dict(type="mmseg_m2f.SemanticIoU")
    assert found({"mmseg/mIoU": 40.0, "mIoU": 0.4}, percent, ours) == {"mIoU": 0.4}
    assert found({"mIoU": 0.3, "mmseg/mIoU": 40.0}, ours, percent) == {"mIoU": 0.3}  # the first
    assert found({"own/mIoU": 0.4, "mIoU": 30.0}, dict(ours, prefix="own"), dict(type="IoUMetric")) == {"mIoU": 0.4}


@pytest.mark.parametrize(
    ("evaluator", "metrics", "expected"),
    [
        (dict(type="mmseg.IoUMetric"), {"mIoU": 66.0, "aAcc": 80.0}, {"mIoU": 0.66}),
        (dict(type="mmdet.VOCMetric"), {"pascal_voc/mAP": 0.7, "pascal_voc/AP50": 0.7}, {"VOC mAP": 0.7}),
        (dict(type="mmdet.CityScapesMetric"), {"cityscapes/mAP": 0.3}, {"mask AP": 0.3}),
        (dict(type="mmdet.LVISMetric", metric="segm"), {"lvis/segm_AP": 0.2}, {"mask AP": 0.2}),
        (dict(type="mmseg_m2f.ObjectMatching"), {"matching_AP50": 0.5}, {"matching AP50": 0.5}),
        (dict(type="mmdet.FasterCocoMetric"), {}, {"box AP": 0.0}),  # derived from CocoMetric
        (COCO, {"coco/segm_mAP": -1.0, "coco/bbox_mAP": 0.1}, {"box AP": 0.1}),  # no mask in the truth
        (dict(type="collections.Counter"), {"x/mIoU": 0.5, "loss": 1.0}, {"mIoU": 0.5}),  # a metric of one's own
    ],
)
def test_scores__of_a_metric(evaluator, metrics, expected):
    assert scores_of(metrics, evaluator, scope="mmengine") == pytest.approx(expected)


def test_scores__nothing_detected_is_zero():
    assert found({"coco_panoptic/PQ": 3.0}, COCO, PANOPTIC) == {"PQ": 0.03, "mask AP": 0.0, "box AP": 0.0}
    assert found({"coco/bbox_mAP": 0.2}, COCO) == {"box AP": 0.2, "mask AP": 0.0}
    assert found({}, dict(COCO, format_only=True)) == found({}, dict(COCO, metric_items=["mAP_50"])) == {}
    assert found({}, dict(type="IoUMetric"), PANOPTIC) == {}  # they always report


@pytest.mark.parametrize(
    "evaluator",
    [
        None,
        dict(type="mmengine.DumpResults"),
        dict(type="mmdet.DumpDetResults"),
        dict(type="IoUMetric", iou_metrics=["mDice"]),
        dict(COCO, metric="proposal"),
        dict(type="mmdet.VOCMetric", metric="recall"),
        dict(type="mmseg_m2f.SemanticIoU", boundary=True),
    ],
)
def test_check_evaluator__refuses_what_reports_no_score(evaluator):
    with pytest.raises(ValueError, match=r"test_evaluator: expected a metric that reports .* got .* Add mmseg_m2f\."):
        check_evaluator(evaluator, scope="mmseg")


def test_check_evaluator__accepts():
    check_evaluator([dict(type="mmengine.DumpResults"), dict(type="IoUMetric")], scope="mmseg")
    check_evaluator(dict(COCO, metric_items=["mAP"]), scope="mmseg")
    check_evaluator(dict(type="collections.Counter"), scope="mmseg")  # may report anything


def test_check_evaluator__two_scores_of_one_name():
    both = [dict(type="IoUMetric"), dict(type="mmseg_m2f.SemanticIoU")]
    with pytest.raises(ValueError, match="two metrics that report mIoU. Give one of them another prefix"):
        check_evaluator(both, scope="mmseg")
    check_evaluator([both[0], dict(both[1], prefix="own")], scope="mmseg")


def test_check_scores__names_what_the_report_has():
    check_scores({"PQ": 1.0}, {}, source="a.py")
    with pytest.raises(ValueError, match=r"a.py: expected one of mIoU, .* got accuracy. Add mmseg_m2f.SemanticIoU"):
        check_scores({}, {"accuracy": 1.0}, source="a.py")
    with pytest.raises(ValueError, match=r"a.py: expected a fraction in \[0, 1\] as mIoU, got 66 "):
        check_scores({"mIoU": 66.0}, {"mIoU": 66.0}, source="a.py")
