import pytest
import torch

from mmseg_m2f.models.necks import SimplePyramid


@pytest.mark.parametrize(
    ("width", "expected"), [(384, 3_298_144), (768, 5_560_000), (1024, 7_805_184), (1536, 14_065_024)]
)
def test_simple_pyramid__has_the_parameters_of_the_release(width, expected):
    with torch.device("meta"):
        pyramid = SimplePyramid(width)
    assert sum(parameter.numel() for parameter in pyramid.parameters()) == expected


def test_simple_pyramid__parameters_of_each_scale():
    stages = SimplePyramid(768).stages
    counts = [sum(parameter.numel() for parameter in stage.parameters()) for stage in stages]
    assert counts == [2_115_904, 1_869_184, 787_456, 787_456]


def test_simple_pyramid__sizes_of_the_maps():
    maps = SimplePyramid(8, channels=4)([torch.randn(1, 8, 40, 56)])
    assert [tuple(x.shape) for x in maps] == [(1, 4, 160, 224), (1, 4, 80, 112), (1, 4, 40, 56), (1, 4, 20, 28)]
    assert SimplePyramid(8, channels=4)([torch.randn(1, 8, 5, 7)])[-1].shape[-2:] == (2, 3)


def test_simple_pyramid__channels_of_every_pixel_are_normalised():
    for x in SimplePyramid(32, channels=64)([torch.randn(2, 32, 6, 8)]):
        torch.testing.assert_close(x.mean(1), torch.zeros_like(x[:, 0]), atol=1e-5, rtol=0)
        torch.testing.assert_close(x.var(1, unbiased=False), torch.ones_like(x[:, 0]), atol=2e-3, rtol=0)


def test_simple_pyramid__reads_the_last_map():
    pyramid, first, last = SimplePyramid(8, channels=4), torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    for found, expected in zip(pyramid([first, last]), pyramid([last]), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("scales", [(), (1, 2), (8, 1), (2, 2)])
def test_simple_pyramid__scales_that_it_does_not_know(scales):
    with pytest.raises(ValueError, match="SimplePyramid.*descending order out of 4, 2, 1, 0.5, got"):
        SimplePyramid(8, scales=scales)


def test_simple_pyramid__channels_that_cannot_be_halved():
    with pytest.raises(ValueError, match="multiple of 4, got 30"):
        SimplePyramid(30)


def test_simple_pyramid__maps_of_another_width():
    with pytest.raises(ValueError, match=r"in_channels=16, got 24 from the backbone. Set model.neck.in_channels=24"):
        SimplePyramid(16)([torch.rand(1, 24, 4, 4)])
