"""The functions of the script; that it runs without this package is tested in `test_model_export.py`."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmseg_m2f.export.standalone_script import SCRIPT

RECORD = dict(input_channels=3, multiple=8)


class Session:
    """A file that finds two objects in two places, the second empty."""

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in ("labels", "object_scores", "object_labels")]

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert inputs["images"].shape == (1, 3, 8, 16)
        assert inputs["images"].flags["C_CONTIGUOUS"]
        return [inputs["images"][:, 0], np.array([[0.5, 0.0]]), np.array([[4, 7]])]


@pytest.fixture
def script(tmp_path: Path) -> dict:
    (tmp_path / "model.py").write_text(SCRIPT.replace("@MODEL@", "model.onnx"))
    return runpy.run_path(str(tmp_path / "model.py"))


def test_script__is_short() -> None:
    assert len(SCRIPT.splitlines()) <= 60


def test_script__leaves_out_objects_that_were_not_found(script: dict) -> None:
    image = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    found = script["predict"](Session(), RECORD, image)
    assert np.array_equal(found["labels"], image[..., 0])
    assert (found["object_scores"].tolist(), found["object_labels"].tolist()) == ([0.5], [4])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 16, 3), np.float32), "an image H W 3 of uint8, got .* of float32"),
        (np.zeros((3, 8, 16), np.uint8), r"an image H W 3 of uint8, got \(3, 8, 16\)"),
        (np.zeros((8, 16), np.uint8), "an image H W 3 of uint8"),
        (np.zeros((8, 16, 4), np.uint8), "an image H W 3 of uint8"),
        (np.zeros((8, 12, 3), np.uint8), r"multiples of 8, got \(8, 12, 3\)"),
    ],
)
def test_script__refuses_other_images(script: dict, image: np.ndarray, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        script["predict"](Session(), RECORD, image)


def test_script__reads_arrays_and_ppm(script: dict, tmp_path: Path) -> None:
    image = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    np.save(tmp_path / "image.npy", image)
    (tmp_path / "image.ppm").write_bytes(b"P6\n5 2\n255\n" + image[..., ::-1].tobytes())
    for name in ("image.npy", "image.ppm"):
        assert np.array_equal(script["read_image"](str(tmp_path / name)), image)
    (tmp_path / "deep.ppm").write_bytes(b"P6\n5 2\n65535\n" + bytes(60))
    with pytest.raises(SystemExit, match="expected a binary PPM of 8 bits"):
        script["read_image"](str(tmp_path / "deep.ppm"))
