from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from mmseg_m2f.errors import InvalidValueError, MissingFileError, ResourceError
from mmseg_m2f.export.writers import write_openvino
from mmseg_m2f.runtime import ExportedModel, is_exported
from mmseg_m2f.runtime.export_record import KEY
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


def write_openvino_file(folder: Path) -> Path:
    """A file whose `scores` are its `images` times 5 x 5 stored numbers."""
    factors = numpy_helper.from_array(np.ones((1, 3, 5, 5), np.float32) * 2)
    nodes = [
        helper.make_node("Constant", [], ["factors"], value=factors),
        helper.make_node("Mul", ["images", "factors"], ["scores"]),
    ]
    write_openvino(write_file(folder / "model.onnx", nodes=nodes), folder / "model.xml", RECORD)
    return folder / "model.xml"


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_exported_model__refuses_truncated_programs(tmp_path, kept):
    path = tmp_path / "model.pt2"
    program = torch.export.export(torch.nn.Conv2d(3, 2, 1), (torch.zeros(1, 3, 8, 8),))
    extra = {f"{KEY}.json": RECORD.to_json(), f"{KEY}.names.json": "images|scores"}
    torch.export.save(program, path, extra_files=extra)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InvalidValueError, match=r"model.pt2: torch does not accept the file .*export it again"):
        ExportedModel(path)


def test_exported_model__names_the_missing_weights_of_openvino(tmp_path):
    path = write_openvino_file(tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(MissingFileError, match=rf"^{path}: expected .* beside it, got no file {tmp_path}/model.bin"):
        ExportedModel(path)


def test_exported_model__says_why_openvino_does_not_accept_a_file(tmp_path):
    path = write_openvino_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidValueError, match=r"openvino does not accept the file \(.* at offset \d+\)"):
        ExportedModel(path)
    path.write_bytes(whole)
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:4])
    with pytest.raises(InvalidValueError, match=r"openvino does not accept the file \(.*Incorrect weights in bin file"):
        ExportedModel(path)


@pytest.mark.parametrize(
    ("name", "runtime", "reason"),
    [("model.onnx", "onnxruntime", "4 by 5"), ("model.xml", "openvino", "dim index: 2 mismatch")],
)
def test_exported_model__explains_failures_of_the_runtime(tmp_path, name, runtime, reason):
    write_openvino_file(tmp_path)
    file = ExportedModel(tmp_path / name)
    assert file(np.ones((1, 3, 5, 5), np.float32))["scores"].max() == 2
    said = rf"^{tmp_path / name}: expected {runtime} to run with images \(1, 3, 4, 4\) of float32, got .*{reason}"
    with pytest.raises(ResourceError, match=said) as caught:
        file(np.ones((1, 3, 4, 4), np.float32))
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
