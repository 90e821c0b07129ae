import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from rasterio.errors import RasterioIOError

from mmseg_m2f.datasets.band_files import check_bands, read_bands
from tests.band_images import draw_bands, save_tiff


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_read_bands__tiff_keeps_values_and_order(dtype: str, tmp_path: Path):
    image = (draw_bands(0)[0] // 256).astype(dtype)
    save_tiff(image, tmp_path / "a.tif")
    read = read_bands(tmp_path / "a.tif", channels=6)
    assert read.dtype == np.float32
    assert np.array_equal(read, image)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float16", "float64"])
def test_read_bands__npy_in_either_order(dtype: str, tmp_path: Path):
    image = (draw_bands(0)[0] // 256).astype(dtype)
    np.save(tmp_path / "last.npy", image)
    np.save(tmp_path / "first.npy", image.transpose(2, 0, 1))
    for name in ("last", "first"):
        assert np.array_equal(read_bands(tmp_path / f"{name}.npy", channels=6), image)


def test_read_bands__one_channel(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    assert read_bands(tmp_path / "a.npy", channels=1).shape == (2, 3, 1)


class Planted:
    def __reduce__(self):
        return (Path.touch, (Path("planted"),))


def test_read_bands__pickles_stay_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    np.save("objects.npy", np.array([Planted()], dtype=object), allow_pickle=True)
    Path("pickle.npy").write_bytes(pickle.dumps(Planted()))
    for name in ("objects.npy", "pickle.npy"):
        with pytest.raises(ValueError, match=f"{name}.*expected an array of numbers as numpy.save writes it"):
            read_bands(name, channels=6)
    assert not Path("planted").exists()


def test_read_bands__truncated(tmp_path: Path):
    stream = io.BytesIO()
    np.save(stream, draw_bands(0)[0])
    (tmp_path / "a.npy").write_bytes(stream.getvalue()[:-100])
    with pytest.raises(ValueError, match=r"a\.npy.*cannot be read as one"):
        read_bands(tmp_path / "a.npy", channels=6)
    save_tiff(draw_bands(0)[0], tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:20000])
    with pytest.raises(RasterioIOError):
        read_bands(tmp_path / "a.tif", channels=6)


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_read_bands__not_finite(name: str, value: float, tmp_path: Path):
    image = draw_bands(0)[0].astype(np.float32)
    image[3, 4, 5] = value
    save_tiff(image, tmp_path / "a.tif")
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(ValueError, match=f"{name}: expected finite numbers, got NaN or infinity in 1 of 18432 values"):
        read_bands(tmp_path / name, channels=6)


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_read_bands__other_number_of_channels(name: str, tmp_path: Path):
    save_tiff(draw_bands(0)[0][..., :4], tmp_path / "a.tif")
    np.save(tmp_path / "a.npy", draw_bands(0)[0][..., :4])
    with pytest.raises(ValueError, match=rf"{name}: expected 6 channels \(option channels\), got 4"):
        read_bands(tmp_path / name, channels=6)


def test_read_bands__pages_instead_of_channels(tmp_path: Path):
    from PIL import Image

    pages = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in range(4)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="expected 4 channels in one picture, got a TIFF file with 4 pages of 1"):
        read_bands(tmp_path / "a.tif", channels=4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 4), complex), "expected integers or floats, got complex128"),
        (np.zeros((2, 2), np.uint8), r"expected height, width and 4 channels, got shape \(2, 2\)"),
        (np.zeros((0, 2, 4), np.uint8), r"got shape \(0, 2, 4\)"),
        (np.full((2, 2, 4), 1e300), "NaN or infinity in 16 of 16"),
    ],
)
def test_check_bands__refused(array: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        check_bands(array, channels=4, source="here")
