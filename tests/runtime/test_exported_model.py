from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmseg_m2f.runtime import ExportedModel, is_exported
from tests.runtime.small_files import RECORD, write_file


def test_exported_model__runs_and_knows_its_record(tmp_path):
    file = ExportedModel(write_file(tmp_path / "model.onnx"))
    images = np.random.default_rng(0).random((2, 3, 8, 9), np.float32)
    assert file.record == RECORD
    assert np.array_equal(file(images)["scores"], images)


@pytest.mark.parametrize(
    ("record", "images", "message"),
    [
        (RECORD, np.zeros((1, 3, 8, 8), np.uint8), "expected float32, got uint8"),
        (replace(RECORD, output="full"), np.zeros((1, 3, 8, 8), np.float32), "expected uint8, got float32"),
        (RECORD, np.zeros((1, 8, 8, 3), np.float32), r"expected B 3 H W, got shape \(1, 8, 8, 3\)"),
        (RECORD, np.zeros((1, 4, 8, 8), np.float32), r"expected B 3 H W, got shape \(1, 4, 8, 8\)"),
        (RECORD, np.zeros((3, 8, 8), np.float32), "Move the channels"),
        (replace(RECORD, size=(8, 8)), np.zeros((1, 3, 8, 9), np.float32), "8 x 8 .*got 8 x 9"),
        (replace(RECORD, batch=1), np.zeros((2, 3, 8, 8), np.float32), "expected 1 at once, got 2"),
        (
            replace(RECORD, multiple=8),
            np.zeros((1, 3, 8, 12), np.float32),
            "multiples of 8, .*got 8 x 12",
        ),
    ],
)
def test_exported_model__refuses_other_images(tmp_path, record, images, message):
    file = ExportedModel(write_file(tmp_path / "model.onnx", record))
    with pytest.raises(ValueError, match=message):
        file(images)


def test_exported_model__refuses_padding_that_it_cannot_see(tmp_path):
    images, valid = np.zeros((1, 3, 8, 8), np.float32), np.ones((1, 8, 8), np.bool_)
    file = ExportedModel(write_file(tmp_path / "model.onnx"))
    file(images, valid)
    valid[:, :, 6:] = False
    with pytest.raises(ValueError, match="expected images without padding, .*no input `valid`.* got 25.0% padding"):
        file(images, valid)
    with pytest.raises(ValueError, match=r"valid: expected bool of shape \(1, 8, 8\), got uint8 of shape \(1, 8, 8\)"):
        file(images, valid.astype(np.uint8))
    with pytest.raises(ValueError, match=r"valid: expected bool of shape \(1, 8, 8\), got bool of shape \(8, 8\)"):
        file(images, valid[0])
    blind = ExportedModel(write_file(tmp_path / "blind.onnx", replace(RECORD, ignores_padding=True)))
    assert np.array_equal(blind(images, valid)["scores"], images)


def test_exported_model__refuses_other_files(tmp_path: Path):
    with pytest.raises(ValueError, match="metadata has the entry 'mmseg_m2f'"):
        ExportedModel(write_file(tmp_path / "foreign.onnx", None))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="does not accept the file"):
        ExportedModel(tmp_path / "broken.onnx")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ExportedModel(tmp_path / "missing.onnx")
    with pytest.raises(ValueError, match=r"expected an exported file \(.onnx"):
        ExportedModel(tmp_path / "model.pth")


def test_exported_model__refuses_a_device_that_the_runtime_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="expected onnxruntime with CUDA for device 'cuda:0', got one without"):
        ExportedModel(write_file(tmp_path / "model.onnx"), device="cuda:0")


def test_is_exported__goes_by_the_suffix():
    assert is_exported("a/model.ONNX")
    assert is_exported(Path("model.xml"))
    assert not is_exported("iter_10.pth")
    assert not is_exported(None)
