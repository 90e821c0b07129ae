from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.visualization import (
    Curve,
    SheetEntry,
    contact_sheet,
    distinct_palette,
    label_image,
    legend,
    overlay,
    plot_curves,
    save_png,
)

PALETTE = [(255, 0, 0), (0, 200, 0)]
GREY = np.full((12, 16, 3), 100, dtype=np.uint8)


def open_picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_overlay__tints_by_opacity() -> None:
    mixed = overlay(GREY, np.ones((12, 16), dtype=np.uint8), PALETTE, opacity=0.5)
    np.testing.assert_array_equal(mixed, np.broadcast_to((50, 150, 50), (12, 16, 3)))


def test_overlay__opacity_zero_keeps_the_image() -> None:
    np.testing.assert_array_equal(overlay(GREY, np.zeros((12, 16), dtype=int), PALETTE, opacity=0.0), GREY)


def test_overlay__void_is_hatched_whatever_its_number() -> None:
    for void in (255, -1, 2):
        mixed = overlay(GREY, np.full((12, 16), void), PALETTE)
        assert len(np.unique(mixed[..., 0])) == 2
        assert mixed.min() < 15
        assert (mixed[..., 0] == mixed[..., 1]).all()


def test_overlay__draws_a_dark_line_between_classes() -> None:
    labels = np.zeros((12, 16), dtype=np.uint8)
    labels[:, 8:] = 1
    mixed = overlay(GREY, labels, PALETTE, opacity=1.0)
    assert mixed[5, 7].tolist() == [255, 0, 0]
    assert mixed[5, 8].tolist() == [0, 110, 0]
    assert mixed[5, 9].tolist() == [0, 200, 0]


def test_overlay__refuses_labels_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"expected labels of the image's size \(12, 16\), got \(6, 8\)"):
        overlay(GREY, np.zeros((6, 8), dtype=int), PALETTE)


def test_distinct_palette__colours_differ_and_stay_the_same() -> None:
    assert distinct_palette(60) == distinct_palette(60)
    assert len(set(distinct_palette(60))) == 60
    assert distinct_palette(60)[:5] == distinct_palette(5)


def test_legend__shows_each_colour_and_breaks_lines() -> None:
    wide = legend(["red", "green"], PALETTE, width=400)
    narrow = legend(["red", "green"], PALETTE, width=60)
    assert (wide.height, narrow.height) == (22, 66)
    colours = {colour for _, colour in wide.getcolors(10000) or []}
    assert set(PALETTE) <= colours


def test_contact_sheet__places_input_truth_and_prediction() -> None:
    truth, prediction = np.zeros((12, 16), dtype=int), np.ones((6, 8), dtype=int)
    entry = SheetEntry("one", GREY, truth, prediction)
    sheet = contact_sheet([entry, entry], ["red", "green"], PALETTE, cell_width=32, opacity=1.0)
    pixels = np.asarray(sheet)
    x = 84 + 16
    heights = [24 + row * (24 + 6) + 12 for row in range(3)]
    assert [tuple(pixels[y, x].tolist()) for y in heights] == [(100, 100, 100), *PALETTE]
    assert sheet.width == 84 + 2 * (32 + 6)


def test_contact_sheet__works_without_truth_and_without_images() -> None:
    entry = SheetEntry("a name that is far too long for its column", GREY, None, np.zeros((12, 16), dtype=int))
    assert contact_sheet([entry], ["red", "green"], PALETTE, cell_width=64).width == 154
    assert contact_sheet([], ["red", "green"], PALETTE).width > 0


def test_contact_sheet__long_class_list_shrinks_to_what_occurs() -> None:
    entry = SheetEntry("x", GREY, None, np.full((12, 16), 7))
    classes = [f"class {i}" for i in range(150)]
    few = contact_sheet([entry], classes, distinct_palette(150))
    assert few.height < 3 * 256 + 24 + 4 * 6 + 60


@pytest.mark.parametrize("empty", [True, False])
def test_plot_curves__draws_with_and_without_data(empty: bool) -> None:
    steps = np.arange(1, 40)
    losses = {} if empty else {"loss": Curve(steps, np.where(steps % 7, 3.0 / steps, np.nan))}
    scores = {} if empty else {"mIoU": Curve(steps[::10], np.linspace(0.1, 0.9, 4))}
    picture = plot_curves(losses, scores=scores, learning_rate=None if empty else Curve(steps, 1e-4 / steps))
    assert picture.size == (1320, 495)
    assert len(picture.getcolors(100000) or []) > 10


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


def test_save_png__leaves_no_unfinished_file(tmp_path: Path) -> None:
    for _ in range(2):
        save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
