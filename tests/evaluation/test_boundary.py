import numpy as np
import pytest

from mmseg_m2f.core.cropped_masks import crop_masks
from mmseg_m2f.evaluation.boundary import boundary_pixels, boundary_regions, boundary_width
from tests.evaluation.object_samples import looped_boundary, rectangle

SIZE = (20, 30)


def region(mask: np.ndarray, width: int) -> np.ndarray:
    return mask & boundary_pixels(mask.astype(np.uint8), width)


@pytest.mark.parametrize(("size", "width"), [((480, 640), 16), ((3, 4), 1), ((1024, 2048), 46), ((60, 45), 2)])
def test_boundary_width__two_percent_of_the_diagonal(size: tuple[int, int], width: int) -> None:
    assert boundary_width(size) == width


@pytest.mark.parametrize(
    ("mask", "width", "area"),
    [
        pytest.param(rectangle(4, 5, 10, 10, size=SIZE), 1, 10 * 10 - 8 * 8, id="ring"),
        pytest.param(rectangle(4, 5, 10, 10, size=SIZE), 3, 10 * 10 - 4 * 4, id="broad_ring"),
        pytest.param(rectangle(4, 5, 10, 10, size=SIZE), 5, 10 * 10, id="nothing_is_left_inside"),
        pytest.param(rectangle(0, 0, 10, 10, size=SIZE), 2, 10 * 10 - 6 * 6, id="beyond_the_image_is_outside"),
        pytest.param(np.ones(SIZE, bool), 2, 20 * 30 - 16 * 26, id="whole_image"),
        # The ring is 2 broad on each side: 12² − 4² = 128 pixels, its region without the middle line is all of it.
        pytest.param(rectangle(3, 3, 12, 12, size=SIZE) & ~rectangle(7, 7, 4, 4, size=SIZE), 2, 128, id="hole"),
        pytest.param(np.zeros(SIZE, bool), 2, 0, id="nothing"),
    ],
)
def test_boundary_pixels__area_of_analytic_shapes(mask: np.ndarray, width: int, area: int) -> None:
    assert region(mask, width).sum() == area


def test_boundary_pixels__shifted_square() -> None:
    square, shifted = (region(rectangle(4, left, 10, 10, size=SIZE), 1) for left in (5, 6))
    # Two rings of 36 share nine pixels of the upper and nine of the lower side.
    assert ((square & shifted).sum(), (square | shifted).sum()) == (18, 54)


@pytest.mark.parametrize("width", [1, 2, 4, 40])
def test_boundary_pixels__equal_loops_over_pixels(width: int) -> None:
    draw = np.random.default_rng(width)
    for share in (0.2, 0.5, 0.8):
        mask = np.kron(draw.random((4, 5)) < share, np.ones((5, 6))) > 0
        expected = looped_boundary(mask, min(width, 10))
        assert expected.any()
        assert np.array_equal(region(mask, width), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_boundary_pixels__equal_the_regions_of_all_labels(dtype: type) -> None:
    label_map = np.kron(np.random.default_rng(0).choice([0, 1, 7, 255], (4, 5)), np.ones((5, 6), int)).astype(dtype)
    expected = sum(looped_boundary(label_map == label, 2) for label in np.unique(label_map))
    assert np.array_equal(boundary_pixels(label_map, 2), expected)


def test_boundary_regions__equal_loops_over_whole_masks() -> None:
    size, draw = (60, 80), np.random.default_rng(3)  # boundary regions are 2 broad
    blobs = [
        rectangle(*draw.integers(0, 50, 2), *draw.integers(1, 20, 2), size=size)
        | rectangle(*draw.integers(0, 50, 2), *draw.integers(1, 20, 2), size=size)
        for _ in range(5)
    ]
    masks = np.stack([*blobs, np.ones(size, bool), np.zeros(size, bool)])
    expected = np.stack([looped_boundary(mask, 2) for mask in masks])
    regions = boundary_regions(crop_masks(masks))
    assert regions.areas().tolist() == expected.sum((1, 2)).tolist()
    assert regions.shared_pixels(crop_masks(expected), np.eye(len(masks), dtype=bool)).sum() == expected.sum()


def test_boundary_regions__of_nothing() -> None:
    nothing = boundary_regions(crop_masks(np.zeros((0, 60, 80), bool)))
    assert (nothing.size, len(nothing)) == ((60, 80), 0)
