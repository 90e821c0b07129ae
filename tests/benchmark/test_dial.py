import json
from pathlib import Path

import pytest
import torch

from mmseg_m2f.benchmark.dial import DialPoint, DialSetting, best_points, make_settings
from mmseg_m2f.config.load import load_config
from mmseg_m2f.registry import MODELS

LEAF = "configs/mask2former/mask2former_r18_shapes_demo.py"
SMALL = {
    "model.decode_head.query_decoder.num_layers": 2,
    "model.decode_head.pixel_decoder.num_layers": 1,
    "test_dataloader.dataset.length": 2,
    "test_dataloader.batch_size": 1,
}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return MODELS.build(load_config(LEAF, SMALL).model).eval()


def test_best_points__no_other_is_faster_and_as_good():
    points = [
        DialPoint(DialSetting(layers), score, ms)
        for layers, score, ms in [(1, 0.2, 1.0), (2, 0.1, 2.0), (3, 0.2, 3.0), (4, 0.5, 4.0), (5, 0.4, 4.0)]
    ]
    assert [point.setting.layers for point in best_points(points)] == [1, 4]


def test_make_settings__all_combinations_as_trained_first(model):
    count = model.decode_head.query_decoder.query_feat.num_embeddings
    found = make_settings(model, layers=None, queries=None, scales=None)
    assert found[0] == DialSetting()
    assert len(found) == 2 * 3  # all of both is "as trained"
    assert {setting.queries for setting in found} == {None, count // 4, count // 2, count}
    assert model.test_cfg.layers is None
    assert make_settings(model, layers=[1], queries=[2], scales=None)[1:] == [DialSetting(1, 2)]
    assert str(found[0]) == "as trained"
    assert str(DialSetting(1, 2, 0.5)) == "1 layer, 2 queries, 0.5 scale"


def test_make_settings__refuses(model):
    with pytest.raises(ValueError, match="from 1 to 2"):
        make_settings(model, layers=[3], queries=None, scales=None)
    with pytest.raises(ValueError, match="window_size"):
        make_settings(model, layers=None, queries=None, scales=[0.5])
    with pytest.raises(ValueError, match="expected a model with a MaskHead, got Linear"):
        make_settings(torch.nn.Linear(1, 1), layers=None, queries=None, scales=None)


def test_dial__writes_report_and_picture(model, tmp_path: Path, run_tool, capsys):
    checkpoint = tmp_path / "model.pth"
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    options = [f"{key}={value}" for key, value in SMALL.items()]
    status = run_tool(
        *("dial", LEAF, str(checkpoint), "--queries", "5", "--images", "2", "--timed", "1", "--rounds", "1"),
        *("--even-if-loaded", "--out", str(tmp_path / "dial"), "--cfg-options", *options),
    )
    assert status == 0
    report = json.loads((tmp_path / "dial/dial.json").read_text())
    assert report["metric"] == "mIoU"
    assert [(point["layers"], point["queries"]) for point in report["points"]] == [(None, None), (1, 5), (2, 5)]
    assert all(point["milliseconds"] > 0 for point in report["points"])
    assert any(point["best"] for point in report["points"])
    assert "| as trained |" in capsys.readouterr().out
    assert (tmp_path / "dial/dial.png").stat().st_size > 1000
