import numpy as np

from mmseg_m2f.visualization.tags import draw_names, draw_tags


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
