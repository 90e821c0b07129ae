import numpy as np

from mmseg_m2f.core.cropped_masks import crop_masks
from tests.evaluation.object_samples import rectangle

SIZE = (60, 80)


def random_masks(seed: int) -> np.ndarray:
    """Blobs of several boxes, one that fills the image, one that is empty."""
    draw = np.random.default_rng(seed)
    blobs = [
        rectangle(*draw.integers(0, 50, 2), *draw.integers(1, 20, 2), size=SIZE)
        | rectangle(*draw.integers(0, 50, 2), *draw.integers(1, 20, 2), size=SIZE)
        for _ in range(5)
    ]
    return np.stack([*blobs, np.ones(SIZE, bool), np.zeros(SIZE, bool)])


def test_crop_masks__spans_rows_and_columns() -> None:
    cropped = crop_masks(np.stack([rectangle(4, 5, 2, 3, size=SIZE), np.zeros(SIZE, bool)]))
    assert cropped.size == SIZE
    assert cropped.boxes.tolist() == [[4, 5, 6, 8], [0, 0, 0, 0]]
    assert [crop.shape for crop in cropped.crops] == [(2, 3), (0, 0)]
    assert cropped.areas().tolist() == [6, 0]


def test_shared_pixels__equal_whole_masks() -> None:
    first, second = random_masks(0), random_masks(1)[1:]
    wanted = np.random.default_rng(2).random((len(first), len(second))) < 0.8
    expected = (first[:, None] & second).sum((2, 3)) * wanted
    assert len(np.unique(expected)) > 10
    assert np.array_equal(crop_masks(first).shared_pixels(crop_masks(second), wanted), expected)


def test_select__keeps_the_order_of_the_indices() -> None:
    cropped = crop_masks(random_masks(4))
    chosen = cropped.select(np.array([5, 2]))
    assert chosen.areas().tolist() == cropped.areas()[[5, 2]].tolist()
    assert chosen.boxes.tolist() == cropped.boxes[[5, 2]].tolist()
    assert len(cropped.select(np.array([], int))) == 0


def test_crop_masks__none() -> None:
    nothing, some = crop_masks(np.zeros((0, *SIZE), bool)), crop_masks(random_masks(5))
    assert (nothing.size, nothing.areas().shape) == (SIZE, (0,))
    assert nothing.shared_pixels(some, np.ones((0, len(some)), bool)).shape == (0, len(some))
