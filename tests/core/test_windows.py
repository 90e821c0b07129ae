import pytest
import torch

from mmseg_m2f.core.windows import average_windows, windows


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
