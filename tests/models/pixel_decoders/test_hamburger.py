import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mmseg_m2f.models.pixel_decoders import HamburgerPixelDecoder
from mmseg_m2f.structures import FeatureSpec
from tests.models.pixel_decoders.maps import SMALL, feature_maps


def test_hamburger__context_is_segnexts_and_coarser_levels_are_its_averages():
    module = HamburgerPixelDecoder(SMALL, channels=32, bases=4).eval()
    head = MODELS.build(
        dict(
            type="mmseg_m2f.SegNeXtHead",
            in_channels=SMALL.channels[1:],
            in_index=[1, 2, 3],
            channels=32,
            ham_channels=32,
            ham_kwargs=dict(MD_R=4),
            norm_cfg=dict(type="GN", num_groups=32),
            loss_decode=dict(type="mmseg.CrossEntropyLoss"),
            num_classes=2,
        )
    ).eval()
    head.squeeze, head.hamburger = module.squeeze, module.hamburger
    head.align = head.conv_seg = head.dropout = torch.nn.Identity()
    features = feature_maps(SMALL)
    expected = head(features)
    _, (coarsest, middle, finest), memory, _ = module(features)
    torch.testing.assert_close(finest, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(middle, F.avg_pool2d(expected, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(coarsest, F.avg_pool2d(expected, 4), rtol=0, atol=1e-6)
    assert memory is coarsest


def test_hamburger__sums_over_all_pixels_stay_finite_in_half_precision():
    module = HamburgerPixelDecoder(SMALL, channels=32, bases=4).eval()
    torch.nn.init.constant_(module.squeeze.norm.weight, 100)
    features = feature_maps(SMALL, (256, 256))
    with torch.autocast("cpu", torch.float16):
        result = module(features)
    assert all(level.isfinite().all() for level in result.levels)


def test_hamburger__one_map():
    with pytest.raises(ValueError, match="expected two maps or more, .* got one"):
        HamburgerPixelDecoder(FeatureSpec((8,), (16,)))


def test_hamburger__same_image_same_result():
    module, features = HamburgerPixelDecoder(SMALL, channels=32, bases=4).eval(), feature_maps(SMALL)
    first, second = module(features), module(features)
    assert torch.equal(first.mask_features, second.mask_features)
    module.train()
    assert not torch.equal(module(features).mask_features, module(features).mask_features)
