"""The functions of the script; that it runs without this package is tested in `test_model_export.py`."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.export.standalone_script import SCRIPT

RECORD = dict(input_channels=3, multiple=8, size=None)


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
        (np.zeros((8, 12, 3), np.uint8), "multiples of 8, got 8 x 12"),
    ],
)
def test_script__refuses_other_images(script: dict, image: np.ndarray, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        script["predict"](Session(), RECORD, image)


def test_script__refuses_images_of_another_size(script: dict) -> None:
    record = RECORD | dict(size=[8, 16])
    assert script["predict"](Session(), record, np.zeros((8, 16, 3), np.uint8))["labels"].shape == (8, 16)
    with pytest.raises(SystemExit, match="Expected a height and width of 8 x 16, got 16 x 8. Resize"):
        script["predict"](Session(), record, np.zeros((16, 8, 3), np.uint8))


def test_script__rotates_jpegs_as_opencv_does(script: dict, tmp_path: Path) -> None:
    path, exif = str(tmp_path / "image.jpg"), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(np.linspace(0, 255, 16 * 32).astype(np.uint8).reshape(16, 32)).save(path, exif=exif)
    image = script["read_image"](path)
    assert image.shape == (32, 16, 3)
    np.testing.assert_allclose(image.astype(float), cv2.imread(path), atol=2)


def test_script__reads_arrays_and_ppm(script: dict, tmp_path: Path) -> None:
    image = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    np.save(tmp_path / "image.npy", image)
    (tmp_path / "image.ppm").write_bytes(b"P6\n5 2\n255\n" + image[..., ::-1].tobytes())
    for name in ("image.npy", "image.ppm"):
        assert np.array_equal(script["read_image"](str(tmp_path / name)), image)
    (tmp_path / "deep.ppm").write_bytes(b"P6\n5 2\n65535\n" + bytes(60))
    with pytest.raises(SystemExit, match="expected a binary PPM of 8 bits"):
        script["read_image"](str(tmp_path / "deep.ppm"))
