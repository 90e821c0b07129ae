import pytest
import torch

from mmseg_m2f.core.points import Taps, find_corners, find_taps, pick_uncertain, sample_points, sample_rows


def test_sample_points__pixel_centres_give_pixels():
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    centres = torch.tensor([[[(x + 0.5) / 3, (y + 0.5) / 2] for y in range(2) for x in range(3)]])
    torch.testing.assert_close(sample_points(maps, centres), torch.arange(6.0).view(1, 1, 6))


def test_sample_points__zero_outside():
    corner = torch.zeros(1, 1, 2)  # a quarter of the corner pixel's weight lies inside
    assert sample_points(torch.ones(1, 1, 4, 4), corner).item() == 0.25


@pytest.mark.parametrize("dim", [0, -1])
def test_find_corners__by_hand(dim):
    left, top, shares = find_corners(torch.tensor([2.25]), torch.tensor([-0.5]), dim=dim)
    assert (left.item(), top.item()) == (2.0, -1.0)
    assert shares.flatten().tolist() == [0.375, 0.125, 0.375, 0.125]
    assert shares.shape == ((4, 1) if dim == 0 else (1, 4))


def test_sample_rows__equals_sample_points():
    maps, points = torch.randn(1, 5, 4, 7, dtype=torch.float64), torch.rand(2, 60, 2, dtype=torch.float64)
    points[0, :4] = torch.tensor([[0, 0], [1, 1], [0, 1], [0.99, 0.01]])
    taps = find_taps((4, 7), points)
    table = maps[0].flatten(1).T.contiguous()
    for pixels, shares, places in zip(*taps, points, strict=True):
        rows = sample_rows(table, Taps(pixels, shares))
        torch.testing.assert_close(rows.T, sample_points(maps, places.unsqueeze(0))[0])


def test_pick_uncertain__takes_logits_nearest_to_zero():
    logits = torch.tensor([[5.0, -0.1, 0.2, -4.0]])
    candidates = torch.arange(8.0).view(1, 4, 2)
    kept = pick_uncertain(logits, candidates, 2)
    assert sorted(kept[0, :, 0].tolist()) == [2.0, 4.0]


def test_pick_uncertain__avoids_unusable_points_while_others_are_left():
    logits = torch.tensor([[5.0, -0.1, 0.2, -4.0]])
    usable = torch.tensor([[True, False, False, True]])
    kept = pick_uncertain(logits, torch.arange(8.0).view(1, 4, 2), 3, usable=usable)
    assert {0.0, 6.0} < set(kept[0, :, 0].tolist())
