from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.doctor.channel_statistics import channel_statistics
from mmseg_m2f.engine.doctor.examination import examine
from tests.band_images import draw_bands, write_band_data

LEAF = "mask2former-tiny_r18_camvid-240x320_cpu"


def write_leaf(folder: Path, *lines: str) -> Path:
    leaf = folder / "mine.py"
    base = Path(load_config(LEAF).filename).resolve()
    data = f"data = dict(root={str(folder / 'data')!r}, classes=('low', 'high'))"
    leaf.write_text("\n".join([f"_base_ = {str(base)!r}", data, "crop_size = (32, 32)", *lines]) + "\n")
    return leaf


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_channel_statistics__of_all_pixels(suffix: str, tmp_path: Path):
    write_band_data(tmp_path / "data", suffix=suffix, num_images=3)
    cfg = load_config(write_leaf(tmp_path, "channels = 6"))
    found = channel_statistics(cfg, workers=2)
    pixels = np.concatenate([draw_bands(index)[0].reshape(-1, 6) for index in range(3)]).astype(float)
    assert (found.num_images, found.num_pixels) == (3, 3 * 48 * 64)
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-12)
    assert np.array_equal(found.lowest, pixels.min(0))
    assert np.array_equal(found.highest, pixels.max(0))

    line = found.text(cfg).splitlines()[-1]
    given = load_config(write_leaf(tmp_path, line))
    np.testing.assert_allclose(given.model.data_preprocessor.mean, found.mean, rtol=1e-5)
    np.testing.assert_allclose(given.model.data_preprocessor.std, found.std, rtol=1e-5)


def test_channel_statistics__rgb_in_the_order_of_the_mean(tmp_path: Path):
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
            shape = (40, 40, 3) if kind == "images" else (40, 40)
            picture = np.zeros(shape, np.uint8) + np.array([10, 20, 30] if kind == "images" else 0, np.uint8)
            Image.fromarray(picture).save(tmp_path / "data" / kind / split / "a.png")
    cfg = load_config(write_leaf(tmp_path))
    found = channel_statistics(cfg)
    assert found.mean.tolist() == [10, 20, 30]
    assert "Channel 0, 1, 2 is constant" in found.text(cfg)
    assert found.text(cfg).splitlines()[-1].startswith("model = dict(data_preprocessor=dict(mean=[10, 20, 30], std=")


def test_examine__images_of_many_channels_are_read(tmp_path: Path):
    write_band_data(tmp_path / "data")
    found = examine(str(write_leaf(tmp_path, "channels = 6", "pretrained = False")), workers=1)
    assert [facts.fault for facts in found.facts["train"]] == ["", ""]
    assert (found.facts["train"][0].size, found.facts["train"][0].channels) == ((48, 64), 6)
    found.save_page(tmp_path / "page.html", title="bands")

    np.save(tmp_path / "data/images/train/0.npy", draw_bands(0)[0][..., :4])
    (tmp_path / "data/images/train/0.npy").rename(tmp_path / "data/images/train/0.tif")
    broken = examine(str(tmp_path / "mine.py"), workers=1)
    assert "cannot be decoded" in broken.facts["train"][0].fault
