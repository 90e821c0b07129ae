from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.datasets import CheckedLoading, LoadBands
from tests.band_images import draw_bands, save_tiff


def test_load_bands__in_checked_loading(tmp_path: Path):
    image, _ = draw_bands(0)
    save_tiff(image, tmp_path / "a.tif")
    results = CheckedLoading([LoadBands(channels=6)])(dict(img_path=str(tmp_path / "a.tif")))
    assert np.array_equal(results["img"], image)
    assert results["img_shape"] == results["ori_shape"] == (48, 64)


def test_load_bands__bits_that_other_loaders_cut_off(tmp_path: Path):
    values = np.array([[0, 300], [4000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    results = CheckedLoading([LoadBands(channels=1)])(dict(img_path=str(tmp_path / "a.png")))
    assert np.array_equal(results["img"][..., 0], values)


def test_load_bands__faults_name_the_file(tmp_path: Path):
    loading = CheckedLoading([LoadBands(channels=6)])
    with pytest.raises(FileNotFoundError, match=r"none\.tif does not exist"):
        loading(dict(img_path=str(tmp_path / "none.tif")))
    (tmp_path / "a.tif").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.tif \(8 bytes\) cannot be decoded"):
        loading(dict(img_path=str(tmp_path / "a.tif")))
