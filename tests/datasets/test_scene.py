import numpy as np
import pytest

from mmseg_m2f.datasets.scene import CLASSES, STUFF_CLASSES, Scene, draw_scene
from mmseg_m2f.structures import IGNORE_INDEX

SIZE = (96, 96)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(1, index, size=SIZE) for index in range(150)]


def test_draw_scene__is_a_function_of_seed_and_index() -> None:
    one, same = draw_scene(3, 8, size=SIZE), draw_scene(3, 8, size=SIZE)
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.segment_map, same.segment_map)
    assert one.segments == same.segments


def test_draw_scene__seeds_and_indices_share_no_scene() -> None:
    images = {draw_scene(seed, index, size=SIZE).image.tobytes() for seed in range(4) for index in range(20)}
    assert len(images) == 80


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (128, 96)])
def test_draw_scene__gives_the_requested_size_and_types(size: tuple[int, int]) -> None:
    scene = draw_scene(0, 0, size=size)
    assert scene.image.shape == (*size, 3)
    assert scene.semantic.shape == scene.segment_map.shape == size
    assert (scene.image.dtype, scene.semantic.dtype, scene.segment_map.dtype) == (
        np.uint8,
        np.uint8,
        np.int16,
    )


def test_draw_scene__segments_and_semantic_labels_agree(scenes: list[Scene]) -> None:
    for scene in scenes:
        categories = np.array([*(s.category for s in scene.segments), IGNORE_INDEX])
        np.testing.assert_array_equal(categories[scene.segment_map], scene.semantic)


def test_draw_scene__segments_are_all_visible_with_their_area(scenes: list[Scene]) -> None:
    for scene in scenes:
        ids, areas = np.unique(scene.segment_map[scene.segment_map >= 0], return_counts=True)
        assert ids.tolist() == list(range(len(scene.segments)))
        assert areas.tolist() == [s.area for s in scene.segments]


def test_draw_scene__stuff_is_one_segment_and_things_are_marked(scenes: list[Scene]) -> None:
    for scene in scenes:
        stuff = [s.category for s in scene.segments if not s.is_thing]
        assert len(set(stuff)) == len(stuff)
        assert all(s.is_thing == (s.category >= len(STUFF_CLASSES)) for s in scene.segments)


def test_draw_scene__void_lies_between_any_two_segments(scenes: list[Scene]) -> None:
    for scene in scenes:
        ids = scene.segment_map
        for one, other in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])):
            assert not ((one != other) & (one >= 0) & (other >= 0)).any()


def test_draw_scene__every_class_occurs_and_void_is_rare(scenes: list[Scene]) -> None:
    pixels = np.bincount(np.concatenate([s.semantic.ravel() for s in scenes]), minlength=256)
    share = pixels / pixels.sum()
    assert (share[: len(CLASSES)] > 0.02).all()
    assert 0.01 < share[IGNORE_INDEX] < 0.15
    assert all(0.01 < (s.semantic == IGNORE_INDEX).mean() < 0.30 for s in scenes)


def test_draw_scene__things_are_tiny_to_half_the_image(scenes: list[Scene]) -> None:
    sides = []
    for scene in scenes:
        for index, segment in enumerate(scene.segments):
            if segment.is_thing:
                y, x = np.nonzero(scene.segment_map == index)
                sides.append(max(np.ptp(y), np.ptp(x)) + 1)
    assert np.quantile(sides, 0.1) < 10
    assert max(sides) > 44
    small = sum(side < 10 for side in sides) / len(sides)
    assert small < 0.3


def test_draw_scene__later_things_hide_parts_of_earlier_ones(scenes: list[Scene]) -> None:
    full = []
    for scene in scenes:
        for index, segment in enumerate(scene.segments):
            y, x = np.nonzero(scene.segment_map == index)
            inside = y.min() > 0 and x.min() > 0 and y.max() < 95 and x.max() < 95
            if CLASSES[segment.category] == "disc" and inside and segment.area > 150:
                full.append(segment.area / ((np.ptp(y) + 1) * (np.ptp(x) + 1)))
    whole, hidden = np.mean(np.array(full) > 0.74), np.mean(np.array(full) < 0.70)
    assert whole > 0.4  # an entire disc fills pi / 4 of its bounding box
    assert hidden > 0.1


@pytest.mark.parametrize(("seed", "index", "size"), [(-1, 0, SIZE), (0, -1, SIZE), (0, 0, (31, 96))])
def test_draw_scene__refuses_what_it_cannot_draw(seed: int, index: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"expected seed >= 0, index >= 0 and both sides >= 32, got seed="):
        draw_scene(seed, index, size=size)
