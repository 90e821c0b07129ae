import pytest
import torch
import torch.nn.functional as F

from mmseg_m2f.models.necks import ResizedPyramid


def test_resized_pyramid__each_map_has_its_own_scale():
    maps = [torch.randn(2, 3, 5, 7) for _ in range(4)]
    found = ResizedPyramid()(maps)
    assert [tuple(x.shape[-2:]) for x in found] == [(20, 28), (10, 14), (5, 7), (2, 3)]
    for x, y, size in zip(maps, found, [(20, 28), (10, 14), (5, 7), (2, 3)], strict=True):
        torch.testing.assert_close(y, F.interpolate(x, size, mode="bilinear"))


def test_resized_pyramid__one_map_serves_all_scales():
    x = torch.randn(1, 3, 4, 4)
    large, same = ResizedPyramid((2, 1))([x])
    assert torch.equal(same, x)
    torch.testing.assert_close(large, F.interpolate(x, (8, 8), mode="bilinear"))


def test_resized_pyramid__other_numbers_of_maps():
    with pytest.raises(ValueError, match="one map for each of the scales .* got 2. Set model.backbone.out_indices"):
        ResizedPyramid()([torch.randn(1, 3, 4, 4)] * 2)


@pytest.mark.parametrize("scales", [(), (1, 2), (1, -1)])
def test_resized_pyramid__scales_in_another_order(scales):
    with pytest.raises(ValueError, match="ResizedPyramid.*descending order out of numbers above 0"):
        ResizedPyramid(scales)
