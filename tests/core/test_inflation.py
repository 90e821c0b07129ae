import pytest
import torch

from mmseg_m2f.core.inflation import inflate


@pytest.mark.parametrize("num_channels", [1, 2, 3, 4, 6, 7, 16])
def test_inflate__equal_channels_get_the_response_as_before(num_channels):
    weight = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    grey = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    before = torch.conv2d(grey.expand(1, 3, 8, 8), weight)
    after = torch.conv2d(grey.expand(1, num_channels, 8, 8), inflate(weight, num_channels))
    torch.testing.assert_close(after, before, atol=1e-12, rtol=0)


def test_inflate__repeats_in_turn():
    weight = torch.tensor([3.0, 5.0, 7.0]).view(1, 3, 1, 1)
    assert inflate(weight, 5).flatten().tolist() == [1.5, 2.5, 7, 1.5, 2.5]
    assert inflate(weight, 2).flatten().tolist() == [10, 5]
    assert torch.equal(inflate(weight, 3), weight)
