from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.files import save_png
from mmseg_m2f.predictions.label_images import label_image, segment_image
from mmseg_m2f.predictions.palettes import distinct_palette

PALETTE = [(255, 0, 0), (0, 200, 0)]


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_label_image__keeps_indices_and_shows_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [1, 255]])
    save_png(label_image(labels, PALETTE), tmp_path / "deep" / "labels.png")
    read = open_picture(tmp_path / "deep" / "labels.png")
    assert np.asarray(read).tolist() == labels.tolist()
    assert np.asarray(read.convert("RGB"))[0].tolist() == [list(c) for c in PALETTE]


def test_label_image__many_classes_use_sixteen_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 846]])
    save_png(label_image(labels, distinct_palette(847)), tmp_path / "labels.png")
    assert np.asarray(open_picture(tmp_path / "labels.png")).tolist() == [[0, 846]]


def test_label_image__refuses_negative_labels() -> None:
    with pytest.raises(ValueError, match=r"expected labels in 0\.\.\.65535, got -1\.\.\.0"):
        label_image(np.array([[-1, 0]]), PALETTE)


def test_segment_image__colours_are_ids() -> None:
    colours = np.asarray(segment_image(np.array([[0, 255, 256, 65536 * 3 + 256 * 2 + 1]])))
    assert colours.tolist() == [[[0, 0, 0], [255, 0, 0], [0, 1, 0], [1, 2, 3]]]
