from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmseg_m2f.files import save_png
from mmseg_m2f.predictions import Objects, Prediction
from mmseg_m2f.predictions.images import label_image, segment_image
from mmseg_m2f.predictions.palettes import distinct_palette, shades
from mmseg_m2f.visualization import (
    Curve,
    SheetEntry,
    annotate,
    contact_sheet,
    legend,
    overlay,
    overlay_objects,
    overlay_panoptic,
    overlay_prediction,
    plot_curves,
    scale_entry,
)
from mmseg_m2f.visualization.tags import draw_names, draw_tags

PALETTE = [(255, 0, 0), (0, 200, 0)]
GREY = np.full((12, 16, 3), 100, dtype=np.uint8)
WHITE_LINE = 204  # of 255, before a fifth of the colour below is added


def semantic(labels: np.ndarray) -> Prediction:
    return Prediction(labels.shape, semantic=labels.astype(np.int64))


def make_objects(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (12, 16), **given: object) -> Objects:
    """Full rectangles x1 y1 x2 y2, all of class 0 and sure."""
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for box_mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        box_mask[top:bottom, left:right] = True
    labels, scores = np.zeros(len(boxes), dtype=np.int64), np.ones(len(boxes), dtype=np.float32)
    return Objects(labels, scores, np.asarray(boxes, dtype=np.float32).reshape(-1, 4), masks)._replace(**given)


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


def test_overlay_panoptic__stuff_has_the_class_colour_and_things_shades_of_it() -> None:
    panoptic = np.zeros((12, 16), dtype=np.int64)
    panoptic[:, 6:11], panoptic[:, 11:] = 1001, 2001
    drawn = overlay_panoptic(GREY, panoptic, ["sky", "dog"], PALETTE, opacity=1.0)
    first, second = (shade.round().astype(int).tolist() for shade in shades(PALETTE, [1, 1]))
    assert drawn[5, 2].tolist() == [255, 0, 0]
    assert drawn[5, 8].tolist() == first == [0, 200, 0]
    assert drawn[5, 14].tolist() == second != first


def test_overlay_panoptic__things_have_a_white_outline_and_stuff_a_dark_one() -> None:
    panoptic = np.zeros((12, 16), dtype=np.int64)
    panoptic[:, 8:] = 1001
    drawn = overlay_panoptic(GREY, panoptic, ["sky", "dog"], PALETTE, opacity=1.0)
    assert drawn[5, 6:10].tolist() == [
        [255, 0, 0],
        [140, 0, 0],
        [WHITE_LINE, WHITE_LINE + 40, WHITE_LINE],
        [0, 200, 0],
    ]


@pytest.mark.parametrize("void", [2, 1002, -1])
def test_overlay_panoptic__void_is_hatched(void: int) -> None:
    panoptic = np.full((12, 16), void)
    drawn = overlay_panoptic(GREY, panoptic, ["sky", "dog"], PALETTE)
    np.testing.assert_array_equal(drawn, overlay(GREY, np.full((12, 16), 255), PALETTE))


def test_overlay_panoptic__names_segments_with_room() -> None:
    image = np.full((100, 200, 3), 100, dtype=np.uint8)
    panoptic = np.zeros((100, 200), dtype=np.int64)
    panoptic[:, 190:] = 1
    plain = overlay(image, panoptic, PALETTE)
    changed = (overlay_panoptic(image, panoptic, ["sky", "dog"], PALETTE) != plain).any(-1)
    columns = changed[:, :185].any(0).nonzero()[0]
    assert 10 < len(columns) < 40
    assert not changed[:, 192:].any()  # too narrow for a name


def test_overlay_objects__each_has_its_colour_and_the_rest_stays() -> None:
    objects = make_objects((1, 1, 4, 4), (6, 1, 9, 4))
    drawn = overlay_objects(GREY, objects, ["cell"], PALETTE[:1], opacity=1.0)
    first, second = distinct_palette(2)
    assert drawn[2, 2].tolist() == list(first)
    assert drawn[2, 7].tolist() == list(second)
    assert (drawn[6:] == 100).all()


def test_overlay_objects__several_classes_keep_the_colours_of_the_legend() -> None:
    objects = make_objects((1, 1, 4, 4), (6, 1, 9, 4), labels=np.array([1, 0]))
    drawn = overlay_objects(GREY, objects, ["a", "b"], PALETTE, opacity=1.0)
    assert (drawn[2, 2].tolist(), drawn[2, 7].tolist()) == ([0, 200, 0], [255, 0, 0])


def test_overlay_objects__small_ones_lie_in_front_and_large_ones_have_an_outline() -> None:
    objects = make_objects((5, 5, 7, 7), (0, 0, 12, 12))
    drawn = overlay_objects(GREY, objects, ["cell"], PALETTE[:1], opacity=1.0)
    small, large = distinct_palette(2)
    assert drawn[5, 5].tolist() == list(small)
    assert drawn[2, 2].tolist() == list(large)
    assert drawn[3, 11].tolist() == [round(WHITE_LINE + 0.2 * value) for value in large]


def test_overlay_objects__unsure_ones_are_left_out() -> None:
    objects = make_objects((1, 1, 4, 4), (6, 1, 9, 4), scores=np.array([0.5, 0.49], dtype=np.float32))
    drawn = overlay_objects(GREY, objects, ["cell"], PALETTE[:1])
    assert (drawn[2, 2] != 100).any()
    assert (drawn[2, 7] == 100).all()
    none = overlay_objects(GREY, objects, ["cell"], PALETTE[:1], score_threshold=0.9)
    np.testing.assert_array_equal(none, GREY)


def test_overlay_objects__boxes_alone_are_framed() -> None:
    image = np.full((60, 80, 3), 100, dtype=np.uint8)
    objects = make_objects((20, 10, 60, 50), labels=np.array([1]), masks=None)
    drawn = overlay_objects(image, objects, ["a", "b"], PALETTE, show_scores=False)
    assert drawn[30, 20].tolist() == drawn[30, 59].tolist() == [0, 200, 0]
    assert (drawn[30, 25:55] == 100).all()
    assert (drawn[:, :18] == 100).all()


def test_overlay_objects__a_tag_says_class_and_score() -> None:
    image = np.full((100, 200, 3), 100, dtype=np.uint8)
    objects = make_objects((20, 40, 180, 90), size=(100, 200))
    classes = ["a very long name", "b"]
    rows = [overlay_objects(image, objects, classes, PALETTE, show_scores=show)[39] for show in (True, False)]
    with_score, without = ((row != 100).any(-1).sum() for row in rows)
    assert with_score > without + 15 > 50
    untagged = overlay_objects(image, objects, ["cell"], PALETTE[:1], show_scores=False)
    assert (untagged[:40] == 100).all()  # one class, no score: nothing to say


def test_overlay_objects__image_without_objects() -> None:
    np.testing.assert_array_equal(overlay_objects(GREY, make_objects(), ["cell"], PALETTE[:1]), GREY)
    np.testing.assert_array_equal(overlay_objects(GREY, make_objects(masks=None), ["cell"], PALETTE[:1]), GREY)


@pytest.mark.parametrize("function", [overlay_panoptic, overlay_objects])
def test_overlays__refuse_another_size(function) -> None:
    found = (
        np.zeros((6, 8), dtype=np.int64) if function is overlay_panoptic else make_objects((0, 0, 2, 2), size=(6, 8))
    )
    with pytest.raises(ValueError, match=rf"{function.__name__}: expected labels of the image's size \(12, 16\)"):
        function(GREY, found, ["a", "b"], PALETTE)


def test_overlay_prediction__resizes_to_the_image() -> None:
    labels = np.array([[0, 1]])
    drawn = overlay_prediction(GREY, semantic(labels), "semantic", ["a", "b"], PALETTE)
    np.testing.assert_array_equal(drawn, overlay(GREY, labels.repeat(12, 0).repeat(8, 1), PALETTE))


def test_overlay_prediction__names_the_answers_there_are() -> None:
    with pytest.raises(ValueError, match=r"expected a prediction with the answer 'panoptic', got \['semantic'\]"):
        overlay_prediction(GREY, semantic(np.zeros((2, 2))), "panoptic", ["a", "b"], PALETTE)


def written(segments: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Where `draw_names` wrote on a black picture."""
    return draw_names(np.zeros((*segments.shape, 3), dtype=np.uint8), segments, names).any(-1)


def test_draw_names__each_in_its_segment() -> None:
    segments = np.zeros((60, 120), dtype=int)
    segments[:, 60:] = 1
    left, right = written(segments, {0: "sky"}), written(segments, {1: "sky"})
    assert left[:, :60].any()
    assert not left[:, 60:].any()
    np.testing.assert_array_equal(written(segments, {0: "sky", 1: "sky"}), left | right)
    assert not written(segments, {0: "a name longer than its segment"}).any()


def test_draw_names__the_smaller_of_two_in_each_others_way_has_none() -> None:
    segments = np.full((60, 120), 2)
    segments[:, 20:40], segments[:, 40:61] = 0, 1
    assert written(segments, {0: "xxxx"}).any()
    np.testing.assert_array_equal(written(segments, {0: "xxxx", 1: "xxxx"}), written(segments, {1: "xxxx"}))


def test_draw_tags__surest_first_and_no_tag_over_another() -> None:
    picture = np.zeros((60, 120, 3), dtype=np.uint8)
    same = dict(anchors=np.full((3, 2), 30.0), areas=np.full(3, 3000.0))
    colours = np.asarray([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.float32)
    drawn = draw_tags(picture, ["first", "second", "third"], colours=colours, **same)
    present = {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
    assert (255, 0, 0) in present
    assert (0, 255, 0) in present  # below the first
    assert (0, 0, 255) not in present


def test_draw_tags__none_at_small_objects_or_many() -> None:
    picture = np.zeros((300, 300, 3), dtype=np.uint8)

    def count(number: int, area: float) -> int:
        anchors = np.stack([np.arange(number) * 5.0, np.full(number, 50.0)], 1)
        colours = np.full((number, 3), 200, dtype=np.float32)
        return int(
            draw_tags(picture, ["x"] * number, anchors=anchors, areas=np.full(number, area), colours=colours).sum()
        )

    assert count(40, 1000.0) > 0
    assert count(41, 1000.0) == 0
    assert count(40, 100.0) == 0


def test_shades__the_first_is_the_colour_itself_and_all_differ() -> None:
    found = shades([(200, 30, 30), (0, 90, 0)], [0, 1, 0, 0, 0, 1])
    np.testing.assert_allclose(found[:2], [(200, 30, 30), (0, 90, 0)], atol=1e-3)
    assert len(np.unique(found.round(), axis=0)) == 6
    assert (found >= 0).all()
    assert (found <= 255).all()
    assert shades([(200, 30, 30)], []).shape == (0, 3)


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


def test_contact_sheet__several_answers_have_rows_and_of_one_image_columns() -> None:
    answers = Prediction(
        (12, 16), np.zeros((12, 16), dtype=int), np.ones((12, 16), dtype=int), make_objects((0, 0, 8, 12))
    )
    entry = SheetEntry("one", GREY, None, answers)
    several = np.asarray(contact_sheet([entry, entry], ["red", "green"], PALETTE, cell_width=32, opacity=1.0))
    # input, then truth (missing) and prediction of panoptic map, objects, label map
    column = [several[24 + row * 30 + 12, 84 + 24].tolist() for row in range(7)]
    assert column[::2] == [[100] * 3, [0, 200, 0], [100] * 3, [255, 0, 0]]
    assert column[1::2] == [[240] * 3] * 3
    single = np.asarray(contact_sheet([entry], ["red", "green"], PALETTE, cell_width=32, opacity=1.0))
    row = [single[24 + 60 + 12, 84 + 24 + index * 38].tolist() for index in range(3)]
    assert row == [[0, 200, 0], [100] * 3, [255, 0, 0]]


def test_contact_sheet__objects_of_one_class_need_no_legend() -> None:
    entry = SheetEntry("x", GREY, None, Prediction((12, 16), instances=make_objects((0, 0, 8, 12))))
    sheet = contact_sheet([entry], ["cell"], PALETTE[:1], cell_width=32)
    assert sheet.height == 24 + 3 * 24 + 4 * 6 + 1 + 6


@pytest.mark.parametrize(
    "answers",
    [
        semantic(np.full((12, 16), 7)),
        Prediction((12, 16), panoptic=np.full((12, 16), 3007)),
        Prediction(
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
def test_contact_sheet__long_class_list_shrinks_to_what_occurs(answers: Prediction) -> None:
    entry = SheetEntry("x", GREY, None, answers)
    classes, palette = [f"class {i}" for i in range(150)], distinct_palette(150)
    few = contact_sheet([entry], classes, palette)
    strip = legend([classes[7]], [palette[7]], width=334)
    bottom = few.crop((6, few.height - 6 - strip.height, 340, few.height - 6))
    np.testing.assert_array_equal(np.asarray(bottom), np.asarray(strip))


def test_annotate__puts_the_answers_side_by_side_and_enlarges() -> None:
    answers = Prediction((12, 16), np.zeros((12, 16), dtype=int), np.ones((12, 16), dtype=int))
    page = np.asarray(annotate(GREY, answers, ["red", "green"], PALETTE, opacity=1.0))
    assert page.shape == (192 + 22, 2 * 256 + 6, 3)
    assert page[20, 20].tolist() == [0, 200, 0]
    assert page[20, 282].tolist() == [255, 0, 0]
    assert annotate(np.zeros((10, 400, 3), dtype=np.uint8), answers, ["red", "green"], PALETTE).width == 806


def test_scale_entry__keeps_what_a_sheet_shows() -> None:
    objects = make_objects((0, 0, 8, 12))
    entry = SheetEntry("x", GREY, semantic(np.eye(12, 16)), Prediction((12, 16), instances=objects))
    scaled = scale_entry(entry, 32)
    assert scaled.image.shape == (24, 32, 3)
    sheets = [contact_sheet([e], ["a", "b"], PALETTE, cell_width=32) for e in (entry, scaled)]
    np.testing.assert_array_equal(*map(np.asarray, sheets))


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


def test_segment_image__colours_are_ids() -> None:
    colours = np.asarray(segment_image(np.array([[0, 255, 256, 65536 * 3 + 256 * 2 + 1]])))
    assert colours.tolist() == [[[0, 0, 0], [255, 0, 0], [0, 1, 0], [1, 2, 3]]]


def test_save_png__leaves_no_unfinished_file(tmp_path: Path) -> None:
    for _ in range(2):
        save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
