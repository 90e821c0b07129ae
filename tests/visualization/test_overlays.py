import numpy as np
import pytest

from mmseg_m2f.predictions.palettes import distinct_palette, shades
from mmseg_m2f.visualization import (
    overlay,
    overlay_objects,
    overlay_panoptic,
    overlay_result,
)
from tests.visualization.examples import GREY, PALETTE, make_objects, semantic

WHITE_LINE = 204  # of 255, before a fifth of the colour below is added


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


def test_overlay_result__resizes_to_the_image() -> None:
    labels = np.array([[0, 1]])
    drawn = overlay_result(GREY, semantic(labels), "semantic", ["a", "b"], PALETTE)
    np.testing.assert_array_equal(drawn, overlay(GREY, labels.repeat(12, 0).repeat(8, 1), PALETTE))


def test_overlay_result__names_the_kinds_there_are() -> None:
    with pytest.raises(ValueError, match=r"expected a result of kind 'panoptic', got \['semantic'\]"):
        overlay_result(GREY, semantic(np.zeros((2, 2))), "panoptic", ["a", "b"], PALETTE)
