import pytest
import torch

from mmseg_m2f.core.windows import average_windows, window_grid, windows


def spans(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    return [(r.start, r.stop, c.start, c.stop) for r, c in windows(size, crop, stride)]


def test_windows__last_one_ends_at_the_border():
    assert spans((4, 9), (4, 4), (3, 3)) == [(0, 4, 0, 4), (0, 4, 3, 7), (0, 4, 5, 9)]


def test_windows__image_smaller_than_the_crop():
    assert spans((3, 5), (4, 4), (2, 2)) == [(0, 3, 0, 4), (0, 3, 1, 5)]


def test_windows__one_window_covers_all():
    assert spans((8, 8), (8, 8), (5, 5)) == [(0, 8, 0, 8)]


@pytest.mark.parametrize("stride", [0, 5])
def test_windows__gaps_are_refused(stride):
    with pytest.raises(ValueError, match=rf"stride must lie in \[1, crop_size\], got stride {stride}"):
        list(windows((8, 8), (4, 4), (stride, stride)))


@pytest.mark.parametrize("crop", [(5, 7), (16, 16), (3, 20)])
def test_average_windows__pixelwise_score_is_unchanged(crop):
    images = torch.randn(2, 3, 13, 17)
    stride = tuple(max(1, c // 2) for c in crop)
    averaged = average_windows(images, lambda x: x * 2 + 1, crop_size=crop, stride=stride)
    torch.testing.assert_close(averaged, images * 2 + 1)


def test_average_windows__overlap_is_the_mean():
    images = torch.zeros(1, 1, 1, 3)
    values = iter([1.0, 3.0])
    averaged = average_windows(images, lambda x: x + next(values), crop_size=(1, 2), stride=(1, 1))
    assert averaged.flatten().tolist() == [1.0, 2.0, 3.0]


def test_window_grid__own_pixels_divide_the_image():
    owners = torch.zeros(13, 17)
    for window in window_grid((13, 17), (6, 5), (4, 2)):
        assert window.rows.start <= window.own_rows.start < window.own_rows.stop <= window.rows.stop
        owners[window.own_rows, window.own_columns] += 1
    assert (owners == 1).all()


def test_window_grid__own_pixels_are_nearest_to_the_middle():
    first, second, third = window_grid((4, 20), (4, 10), (4, 6))
    assert [(w.columns.start, w.own_columns) for w in (first, second, third)] == [
        (0, slice(0, 8)),
        (6, slice(8, 13)),
        (10, slice(13, 20)),
    ]


def test_window_grid__on_a_resized_image():
    grid = window_grid((8, 20), (8, 10), (8, 5)).resized((16, 30))
    assert (grid.rows, grid.columns) == (((0, 16),), ((0, 15), (8, 23), (15, 30)))
    assert grid.size == (16, 30)


def test_average_windows__gaussian_weights():
    values = iter([1.0, 3.0])
    blended = average_windows(
        torch.zeros(1, 1, 1, 3), lambda x: x + next(values), crop_size=(1, 2), stride=(1, 1), blend="gaussian"
    )
    torch.testing.assert_close(blended.flatten(), torch.tensor([1.0, 2.0, 3.0]))  # the middle is equally far from both


@pytest.mark.parametrize(("blend", "largest"), [("mean", 0.5), ("gaussian", 0.25)])
def test_average_windows__gaussian_hides_seams(blend, largest):
    values = iter([0.0, 1.0])
    scores = average_windows(
        torch.zeros(1, 1, 8, 48), lambda x: x + next(values), crop_size=(8, 32), stride=(8, 16), blend=blend
    )
    assert scores[0, 0, 4].diff().max() <= largest
    assert scores[0, 0, 4].diff().min() >= 0


def test_average_windows__gaussian_keeps_pixelwise_scores():
    images = torch.randn(2, 3, 13, 17)
    blended = average_windows(images, lambda x: x * 2 + 1, crop_size=(5, 7), stride=(2, 3), blend="gaussian")
    torch.testing.assert_close(blended, images * 2 + 1)
