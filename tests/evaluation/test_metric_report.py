import re

import pytest
from mmseg.registry import DATASETS

from mmseg_m2f.evaluation.metric_report import MetricReport, format_table, fraction_cell, metric_names

#: TensorBoard's rule, the strictest of the three: MLflow also takes spaces and colons.
TAKEN_UNCHANGED = re.compile(r"[-/\w.]+")
SHIPPED = ["ADE20KDataset", "CityscapesDataset", "COCOStuffDataset", "MapillaryDataset_v1", "PascalContextDataset"]


def test_metric_names__spells_what_trackers_refuse() -> None:
    names = metric_names(["road", "Lane Marking - Crosswalk", "traffic sign (back)", "On Rails?", "车"])
    assert names == ["road", "Lane_Marking_-_Crosswalk", "traffic_sign_back", "On_Rails", "车"]


def test_metric_names__stay_different() -> None:
    assert metric_names(["a b", "a_b", "a b!", "()", "()", "a_b_1"]) == ["a_b_0", "a_b_1", "a_b_2", "3", "4", "a_b_1_5"]


@pytest.mark.parametrize("name", SHIPPED)
def test_metric_names__of_shipped_data_sets(name: str) -> None:
    classes = DATASETS.get(name).METAINFO["classes"]
    names = metric_names(classes)
    assert len(set(names)) == len(classes)
    assert [name for name in names if not TAKEN_UNCHANGED.fullmatch(f"val/IoU.{name}")] == []


def test_format_table__first_column_left_others_right() -> None:
    assert format_table({"class": ["a", "long name"], "IoU": ["0.5", "-"]}).splitlines() == [
        "class      IoU",
        "a          0.5",
        "long name    -",
    ]


def test_fraction_cell__none_and_nan_are_dashes() -> None:
    assert [fraction_cell(value) for value in (0.12345, 1.0, None, float("nan"))] == ["0.1235", "1.0000", "-", "-"]


def test_metric_report__names_and_log(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr("mmseg_m2f.evaluation.metric_report.print_log", lambda text, logger: texts.append(text))
    report = MetricReport("Boundary IoU", {"mIoU": 0.25}, "IoU", {1: 0.25}, {"IoU": ["-", "0.25"]}, "boundary_")
    metrics = report.publish(["sky", "oak tree"], 3)
    assert metrics == {"boundary_mIoU": 0.25, "boundary_IoU.oak_tree": 0.25}
    assert texts == [
        "Boundary IoU of 2 classes on 3 images\nclass      IoU\nsky          -\noak tree  0.25\nboundary_mIoU 0.2500"
    ]
