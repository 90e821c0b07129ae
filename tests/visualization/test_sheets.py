import numpy as np
import pytest

from mmseg_m2f.predictions import ImageResult
from mmseg_m2f.predictions.palettes import distinct_palette
from mmseg_m2f.visualization import (
    SheetEntry,
    annotate,
    contact_sheet,
    legend,
    scale_entry,
)
from tests.visualization.examples import GREY, PALETTE, make_objects, semantic


def test_legend__shows_each_colour_and_breaks_lines() -> None:
    wide = legend(["red", "green"], PALETTE, width=400)
    narrow = legend(["red", "green"], PALETTE, width=60)
    assert (wide.height, narrow.height) == (22, 66)
    colours = {colour for _, colour in wide.getcolors(10000) or []}
    assert set(PALETTE) <= colours


def test_contact_sheet__places_input_truth_and_prediction() -> None:
    truth, prediction = np.zeros((12, 16), dtype=int), np.ones((6, 8), dtype=int)
    entry = SheetEntry("one", GREY, semantic(truth), semantic(prediction))
    sheet = contact_sheet([entry, entry], ["red", "green"], PALETTE, cell_width=32, opacity=1.0)
    pixels = np.asarray(sheet)
    x = 84 + 16
    heights = [24 + row * (24 + 6) + 12 for row in range(3)]
    assert [tuple(pixels[y, x].tolist()) for y in heights] == [(100, 100, 100), *PALETTE]
    assert sheet.width == 84 + 2 * (32 + 6)


def test_contact_sheet__works_without_truth_and_without_images() -> None:
    entry = SheetEntry("a name that is far too long for its column", GREY, None, semantic(np.zeros((12, 16))))
    assert contact_sheet([entry], ["red", "green"], PALETTE, cell_width=64).width == 154
    assert contact_sheet([], ["red", "green"], PALETTE).width > 0


def test_contact_sheet__several_results_have_rows_and_of_one_image_columns() -> None:
    results = ImageResult(
        (12, 16), np.zeros((12, 16), dtype=int), np.ones((12, 16), dtype=int), make_objects((0, 0, 8, 12))
    )
    entry = SheetEntry("one", GREY, None, results)
    several = np.asarray(contact_sheet([entry, entry], ["red", "green"], PALETTE, cell_width=32, opacity=1.0))
    # input, then truth (missing) and prediction of panoptic map, objects, label map
    column = [several[24 + row * 30 + 12, 84 + 24].tolist() for row in range(7)]
    assert column[::2] == [[100] * 3, [0, 200, 0], [100] * 3, [255, 0, 0]]
    assert column[1::2] == [[240] * 3] * 3
    single = np.asarray(contact_sheet([entry], ["red", "green"], PALETTE, cell_width=32, opacity=1.0))
    row = [single[24 + 60 + 12, 84 + 24 + index * 38].tolist() for index in range(3)]
    assert row == [[0, 200, 0], [100] * 3, [255, 0, 0]]


def test_contact_sheet__objects_of_one_class_need_no_legend() -> None:
    entry = SheetEntry("x", GREY, None, ImageResult((12, 16), instances=make_objects((0, 0, 8, 12))))
    sheet = contact_sheet([entry], ["cell"], PALETTE[:1], cell_width=32)
    assert sheet.height == 24 + 3 * 24 + 4 * 6 + 1 + 6


@pytest.mark.parametrize(
    "results",
    [
        semantic(np.full((12, 16), 7)),
        ImageResult((12, 16), panoptic=np.full((12, 16), 3007)),
        ImageResult(
            (12, 16),
            instances=make_objects(
                (0, 0, 8, 12),
                (0, 0, 8, 12),
                labels=np.array([7, 9]),
                scores=np.array([0.9, 0.1], dtype=np.float32),
            ),
        ),
    ],
    ids=["semantic", "panoptic", "instances"],
)
def test_contact_sheet__long_class_list_shrinks_to_what_occurs(results: ImageResult) -> None:
    entry = SheetEntry("x", GREY, None, results)
    classes, palette = [f"class {i}" for i in range(150)], distinct_palette(150)
    few = contact_sheet([entry], classes, palette)
    strip = legend([classes[7]], [palette[7]], width=334)
    bottom = few.crop((6, few.height - 6 - strip.height, 340, few.height - 6))
    np.testing.assert_array_equal(np.asarray(bottom), np.asarray(strip))


def test_annotate__puts_results_side_by_side_and_enlarges() -> None:
    results = ImageResult((12, 16), np.zeros((12, 16), dtype=int), np.ones((12, 16), dtype=int))
    page = np.asarray(annotate(GREY, results, ["red", "green"], PALETTE, opacity=1.0))
    assert page.shape == (192 + 22, 2 * 256 + 6, 3)
    assert page[20, 20].tolist() == [0, 200, 0]
    assert page[20, 282].tolist() == [255, 0, 0]
    assert annotate(np.zeros((10, 400, 3), dtype=np.uint8), results, ["red", "green"], PALETTE).width == 806


def test_scale_entry__keeps_what_a_sheet_shows() -> None:
    objects = make_objects((0, 0, 8, 12))
    entry = SheetEntry("x", GREY, semantic(np.eye(12, 16)), ImageResult((12, 16), instances=objects))
    scaled = scale_entry(entry, 32)
    assert scaled.image.shape == (24, 32, 3)
    sheets = [contact_sheet([e], ["a", "b"], PALETTE, cell_width=32) for e in (entry, scaled)]
    np.testing.assert_array_equal(*map(np.asarray, sheets))
