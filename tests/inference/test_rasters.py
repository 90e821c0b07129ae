import sys

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import from_origin

from mmseg_m2f.inference.rasters import map_writer, open_raster
from tests.band_images import draw_bands, save_tiff

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of files without a place


@pytest.fixture
def pixels() -> np.ndarray:
    """RGB H W 3."""
    return np.random.default_rng(0).integers(256, size=(80, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_raster__reads_windows_as_bgr(pixels, suffix, tmp_path):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(pixels).save(path)
    with open_raster(path) as raster:
        assert raster.size == (80, 60)
        part = raster.read(slice(10, 33), slice(5, 60))
    np.testing.assert_array_equal(part, pixels[10:33, 5:60, ::-1])


def test_raster__grey_has_three_equal_channels(pixels, tmp_path):
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    with open_raster(tmp_path / "grey.png") as raster:
        part = raster.read(slice(0, 80), slice(0, 60))
    np.testing.assert_array_equal(part, pixels[..., :1].repeat(3, axis=2))


def test_raster__corrupt_strip(pixels, tmp_path):
    path = tmp_path / "image.tif"
    with rasterio.open(path, "w", driver="GTiff", height=80, width=60, count=3, dtype="uint8", compress="deflate",
                       blockysize=16, interleave="pixel") as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))
    content = bytearray(path.read_bytes())
    with Image.open(path) as image:
        offset, length = image.tag_v2[273][2], image.tag_v2[279][2]
    content[offset : offset + length] = bytes(length)
    path.write_bytes(content)
    with open_raster(path) as raster:
        raster.read(slice(0, 32), slice(0, 60))
        with pytest.raises(ValueError, match=r"readable pixels in rows 20…59 and columns 0…59, got a damaged part"):
            raster.read(slice(20, 60), slice(0, 60))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.tif", FileNotFoundError, "expected an image, got no file"),
        ("text.tif", ValueError, "expected an image that GDAL reads"),
        ("deep.tif", ValueError, "expected 1, 3 or 4 channels of uint8, got 1 of uint16"),
    ],
)
def test_open_raster__refused(name, error, message, tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.tif")
    with pytest.raises(error, match=message), open_raster(tmp_path / name):
        pass


def test_open_raster__package_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(TypeError, match=r'not installed. Run `pip install "mmseg-m2f\[large\]"`'):
        open_raster(tmp_path / "image.tif").__enter__()


def test_map_writer__keeps_the_georeference(pixels, tmp_path):
    source = tmp_path / "source.tif"
    place = dict(crs=CRS.from_epsg(32632), transform=from_origin(500000, 5000000, 0.1, 0.1))
    with rasterio.open(source, "w", driver="GTiff", height=80, width=60, count=3, dtype="uint8", **place) as file:
        file.write(pixels.transpose(2, 0, 1))
    labels = pixels[..., 0].astype(np.int64)
    with (
        open_raster(source) as raster,
        map_writer(tmp_path / "labels.tif", raster, np.uint8, palette=[(1, 2, 3), (4, 5, 6)]) as writer,
    ):
        writer.write(labels[:50])
        writer.write(labels[50:])
    with rasterio.open(tmp_path / "labels.tif") as file:
        np.testing.assert_array_equal(file.read(1), labels)
        assert (file.crs, file.transform) == (place["crs"], place["transform"])
        assert file.colormap(1)[1] == (4, 5, 6, 255)


def test_map_writer__nothing_is_left_after_an_error(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "source.png")
    with (
        pytest.raises(ZeroDivisionError),
        open_raster(tmp_path / "source.png") as raster,
        map_writer(tmp_path / "labels.tif", raster, np.uint8),
    ):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["source.png"]


def test_raster__all_channels_of_any_bits(tmp_path):
    image, _ = draw_bands(0)
    save_tiff(image, tmp_path / "bands.tif")
    with open_raster(tmp_path / "bands.tif", num_channels=6) as raster:
        part = raster.read(slice(10, 33), slice(5, 60))
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, image[10:33, 5:60])
    with (
        pytest.raises(ValueError, match=r"bands\.tif: expected 4 channels, as the model was trained on, got 6"),
        open_raster(tmp_path / "bands.tif", num_channels=4),
    ):
        pass


def test_raster__not_finite(tmp_path):
    image = draw_bands(0)[0].astype(np.float32)
    image[3, 4, 5] = np.nan
    save_tiff(image, tmp_path / "bands.tif")
    with open_raster(tmp_path / "bands.tif", num_channels=6) as raster:
        raster.read(slice(8, 16), slice(0, 64))
        with pytest.raises(ValueError, match="expected finite numbers, got NaN or infinity in 1 of"):
            raster.read(slice(0, 8), slice(0, 64))
