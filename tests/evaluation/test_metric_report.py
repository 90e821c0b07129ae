import re
from collections.abc import Sequence

import pytest
from mmengine.config import Config

from mmseg_m2f.evaluation.metric_report import MetricReport, format_table, fraction_cell, metric_names
from mmseg_m2f.registry import DATASETS
from tests.command_line import ROOT

#: TensorBoard's rule, the strictest of the three: MLflow also takes spaces and colons.
TAKEN_UNCHANGED = re.compile(r"[-/\w.]+")
SHIPPED = [
    *("mmseg.ADE20KDataset", "mmseg.CityscapesDataset", "mmseg.COCOStuffDataset", "mmseg.MapillaryDataset_v1"),
    "mmseg.PascalContextDataset",
    *("mmdet.CocoDataset", "mmdet.CocoPanopticDataset", "mmdet.ADE20KPanopticDataset", "mmdet.ADE20KInstanceDataset"),
    "mmseg_m2f.GeneratedShapes",
]


def test_metric_names__spells_what_trackers_refuse() -> None:
    names = metric_names(["road", "Lane Marking - Crosswalk", "traffic sign (back)", "On Rails?", "车"])
    assert names == ["road", "Lane_Marking_-_Crosswalk", "traffic_sign_back", "On_Rails", "车"]


def test_metric_names__stay_different() -> None:
    assert metric_names(["a b", "a_b", "a b!", "()", "()", "a_b_1"]) == ["a_b_0", "a_b_1", "a_b_2", "3", "4", "a_b_1_5"]


@pytest.mark.parametrize("name", SHIPPED)
def test_metric_names__of_shipped_data_sets(name: str) -> None:
    check_names(DATASETS.get(name).METAINFO["classes"])


@pytest.mark.parametrize("name", ["camvid_360x480", "dsb2018_256"])
def test_metric_names__of_shipped_data_sets_named_in_their_ingredient(name: str) -> None:
    check_names(Config.fromfile(ROOT / f"configs/_base_/datasets/{name}.py").dataset_metainfo.classes)


def check_names(classes: Sequence[str]) -> None:
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
