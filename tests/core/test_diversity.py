import pytest
import torch

from mmseg_m2f.core.diversity import spatial_coverage


def slow_coverage(channels: torch.Tensor) -> float:
    """Of one image C H W, place by place."""
    probs = [channel.flatten().softmax(0).tolist() for channel in channels]
    return sum(max(column) for column in zip(*probs, strict=True))


def test_coverage__equals_loops_and_stays_in_range():
    maps = 3 * torch.randn(4, 6, 3, 5)
    found = spatial_coverage(maps)
    assert found.tolist() == pytest.approx([slow_coverage(image) for image in maps], rel=1e-5)
    assert found.min() >= 1
    assert found.max() <= 6 + 1e-5
    assert spatial_coverage(1000 * torch.randn(4, 40, 3, 5)).max() <= 15 + 1e-4


def test_coverage__same_channels_and_channels_of_their_own():
    same = torch.randn(2, 1, 4, 4).expand(2, 6, 4, 4)
    torch.testing.assert_close(spatial_coverage(same), torch.ones(2))
    own = 1e4 * torch.eye(16)[:6].view(1, 6, 4, 4)
    torch.testing.assert_close(spatial_coverage(own), torch.tensor([6.0]))
