import json
from dataclasses import replace

import pytest

from mmseg_m2f.runtime.export_record import ExportRecord
from tests.runtime.small_files import RECORD


def test_export_record__comes_back_from_its_text():
    record = replace(RECORD, palette=((1, 2, 3), (4, 5, 6)), size=(64, 96), mean=(1.5, 2.0, 3.0), opset=18)
    assert ExportRecord.from_json(record.to_json(), file="model.onnx") == record


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"output": "logits"}', "[" * 100_000])
def test_export_record__refuses_other_metadata(text):
    with pytest.raises(ValueError, match=r"model.onnx: expected a file that tools/export.py wrote"):
        ExportRecord.from_json(text, file="model.onnx")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(classes="cat"), "got 'cat' instead of a list at classes"),
        (dict(to_rgb=1), "got 1 instead of true or false at to_rgb"),
        (dict(size=[64, "96"]), r"got '96' instead of a whole number at size\[1\]"),
        (dict(mean=[None]), r"got None instead of a number at mean\[0\]"),
        (dict(palette=[1]), r"got 1 instead of a list at palette\[0\]"),
    ],
)
def test_export_record__names_the_entry_of_another_kind(change, said):
    text = json.dumps(json.loads(RECORD.to_json()) | change)
    with pytest.raises(ValueError, match=rf"model.onnx: .*tools/export.py wrote.*{said}.*Export the"):
        ExportRecord.from_json(text, file="model.onnx")
