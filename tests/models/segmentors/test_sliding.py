import pytest
import torch
from mmengine.config import ConfigDict

from mmseg_m2f.models.segmentors.sliding import check_sliding, check_window_size, rescaled, window_scales


def settings(**changed: object) -> ConfigDict:
    return ConfigDict(dict(mode="slide", crop_size=[64, 32], stride=[32, 16], scale=1.0, blend="mean") | changed)


def test_check_sliding__lists_become_tuples():
    cfg = settings()
    check_sliding(cfg)
    assert (cfg.crop_size, cfg.stride) == ((64, 32), (32, 16))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(mode="tiles"), "mode: expected 'whole' or 'slide', got 'tiles'"),
        (dict(stride=None), "needs crop_size and stride"),
        (dict(stride=(64, 33)), r"got stride 33 with crop_size 32 \(an overlap of -1 pixels\)"),
        (dict(stride=(0, 16)), r"got stride 0 with crop_size 64 \(an overlap of 64 pixels\)"),
        (dict(blend="linear"), "blend: expected 'mean' or 'gaussian', got 'linear'"),
        (dict(scale=0), "scale: expected a factor above 0 for the size of the image, or several different ones, got 0"),
        (dict(scale=[2.0, 2.0]), r"several different ones, got \[2.0, 2.0\]"),
        (dict(scale=[[1.0, 2.0], 3.0]), r"several different ones, got \[\[1.0, 2.0\], 3.0\]"),
        (dict(scale=[]), r"several different ones, got \[\]"),
        (dict(mode="whole", scale=0.5), "but mode is 'whole'"),
    ],
)
def test_check_sliding__refused(changed, message):
    with pytest.raises(ValueError, match=message):
        check_sliding(settings(**changed))


def test_check_window_size__smaller_than_the_coarsest_cell():
    with pytest.raises(
        ValueError, match=r"at least 64 pixels, the stride of the backbone's coarsest map, got \[64, 32"
    ):
        check_window_size(settings(), (4, 64))
    check_window_size(settings(), (4, 32))


def test_rescaled__by_a_factor():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    assert rescaled(images, 1.0) is images
    assert rescaled(images, 1.5).shape == (1, 1, 6, 6)
    torch.testing.assert_close(rescaled(images, 0.5).mean(), images.mean())


@pytest.mark.parametrize(("scale", "expected"), [(2, (2,)), ([2.0, 3.0], (2.0, 3.0)), ((1.0,), (1.0,))])
def test_window_scales__one_or_several(scale, expected):
    assert window_scales(ConfigDict(scale=scale)) == expected
