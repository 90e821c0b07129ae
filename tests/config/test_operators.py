import sys

import pytest
from mmcv import ops
from mmengine.config import Config

from mmseg_m2f import compat
from mmseg_m2f.config.operators import check_operators, unserved_operators


@pytest.fixture(autouse=True)
def without_compiled_operators(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv._ext", compat._StandInExtension("mmcv._ext"))


@pytest.mark.parametrize(
    "model",
    [
        dict(type="mmdet.CLRNet", bbox_head=dict(type="mmdet.CLRHead")),
        dict(type="mmdet.FasterRCNN", roi_head=[dict(roi_layer=dict(type="RiRoIAlignRotated"))]),
    ],
)
def test_check_operators__names_operator_part_and_remedy(tmp_path, model):
    file = tmp_path / "some.py"
    file.write_text("")
    cfg = Config(dict(model=model, default_scope="mmdet"), filename=str(file))
    part = r"model\.bbox_head \(CLRHead\)" if "bbox_head" in model else r"model\.roi_head\[0\]\.roi_layer \(RiRoI"
    operator = "line_nms_forward" if "bbox_head" in model else "riroi_align_rotated_backward"
    with pytest.raises(RuntimeError, match=rf"some\.py: {part}.*mmcv\._ext\.{operator}: .*Get them by"):
        check_operators(cfg)


def test_check_operators__served_ones_pass():
    roi_layer = dict(type="RoIAlign", output_size=7)
    parts = ["DCNv2", "MaskedConv2d", "GARetinaHead", "RPNHead", "PSAHead"]
    check_operators(Config(dict(model=dict(parts=[roi_layer, *(dict(type=name) for name in parts)]))))
    check_operators(Config(dict()))


def test_unserved_operators__of_a_file_that_has_both():
    assert unserved_operators(ops.nms) == set()
    assert unserved_operators(ops.nms_rotated) == {"nms_rotated"}
    assert unserved_operators(ops.BorderAlign) == {"border_align_forward", "border_align_backward"}
