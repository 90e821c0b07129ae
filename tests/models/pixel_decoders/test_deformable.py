import pytest
import torch

from mmseg_m2f.models.pixel_decoders import DeformablePixelDecoder
from mmseg_m2f.structures import FeatureSpec
from tests.models.pixel_decoders.maps import SMALL, feature_maps


def test_deformable__too_few_maps():
    with pytest.raises(ValueError, match="num_levels is 3, but the backbone returns only 2 maps"):
        DeformablePixelDecoder(FeatureSpec((8, 16), (8, 16)))


def test_deformable__two_finer_maps_take_two_fpn_steps():
    spec = FeatureSpec((4, 8, 16, 24, 32), (2, 4, 8, 16, 32))
    mask_features, levels, *_ = DeformablePixelDecoder(spec, channels=32)(feature_maps(spec))
    assert mask_features.shape[-2:] == (32, 48)
    assert len(levels) == 3


def test_deformable_pixel_decoder__recomputing_changes_no_number():
    plain = DeformablePixelDecoder(SMALL, channels=32, num_layers=2, num_heads=4, norm_groups=8, recompute=False)
    again = DeformablePixelDecoder(SMALL, channels=32, num_layers=2, num_heads=4, norm_groups=8, recompute=True)
    again.load_state_dict(plain.state_dict())
    maps = feature_maps(SMALL)
    gradients, kept = [], []
    for decoder in (plain, again):
        count = [0]
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, count=count: count.__setitem__(0, count[0] + t.numel()) or t, lambda t: t
        ):
            out = decoder(maps)
        kept.append(count[0])
        total = out.mask_features.sum() + sum(level.square().sum() for level in out.levels)
        gradients.append(torch.autograd.grad(total, list(decoder.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert kept[1] < 0.6 * kept[0]
