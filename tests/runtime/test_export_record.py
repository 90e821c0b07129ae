from dataclasses import replace

import pytest

from mmseg_m2f.runtime.export_record import ExportRecord
from tests.runtime.small_files import RECORD


def test_export_record__comes_back_from_its_text():
    record = replace(RECORD, palette=((1, 2, 3), (4, 5, 6)), size=(64, 96), mean=(1.5, 2.0, 3.0), opset=18)
    assert ExportRecord.from_json(record.to_json(), file="model.onnx") == record


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"output": "logits"}'])
def test_export_record__refuses_other_metadata(text):
    with pytest.raises(ValueError, match=r"model.onnx: expected a file that tools/export.py wrote"):
        ExportRecord.from_json(text, file="model.onnx")
