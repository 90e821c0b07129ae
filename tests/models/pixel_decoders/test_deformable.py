import pytest
import torch

from mmseg_m2f.models.pixel_decoders import DeformablePixelDecoder
from mmseg_m2f.structures import FeatureSpec
from tests.models.pixel_decoders.maps import R50, SMALL, count, feature_maps


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
    assert kept[1] < 0.15 * kept[0]


def test_deformable__extra_levels_are_coarser_and_come_first():
    decoder = DeformablePixelDecoder(SMALL, channels=32, num_layers=1, num_extra_levels=2, norm_groups=8)
    maps = feature_maps(SMALL)
    _, levels, memory, _ = decoder(maps)
    heights = [level.shape[-2] for level in levels]
    coarsest = maps[-1].shape[-2]
    half = (coarsest + 1) // 2
    assert heights[:3] == [(half + 1) // 2, half, coarsest]
    assert memory is levels[2]  # padding is known at the size of the backbone's coarsest map
    assert decoder.spec.levels == (32,) * 5


def test_deformable__finest_map_is_added_where_the_encoder_has_read_it():
    options = dict(channels=32, num_levels=len(SMALL.channels), num_layers=1, norm_groups=8)
    maps = feature_maps(SMALL)
    plain, added = (DeformablePixelDecoder(SMALL, always_add_finest=add, **options) for add in (False, True))
    assert (len(plain.lateral_convs), len(added.lateral_convs)) == (0, 1)
    assert added(maps).mask_features.shape == plain(maps).mask_features.shape


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(num_extra_levels=1, feedforward_channels=2048), 14_055_424),
        (dict(num_extra_levels=1), 10_903_552),
        (dict(), 6_035_904),
    ],
)
def test_deformable__published_sizes_of_mask_dino(options, expected):
    with torch.device("meta"):
        decoder = DeformablePixelDecoder(R50, always_add_finest=True, **options)
    assert count(decoder) == expected


def test_deformable__published_size_and_tensors_of_mask_dino_with_swin_l():
    spec = FeatureSpec((192, 384, 768, 1536), (4, 8, 16, 32))
    options = dict(num_extra_levels=1, feedforward_channels=2048, always_add_finest=True)
    with torch.device("meta"):
        swin = DeformablePixelDecoder(spec, num_levels=4, **options)
        resnet = DeformablePixelDecoder(R50, **options)
    assert count(swin) == 12_828_224
    assert len(list(resnet.parameters())) == 121
