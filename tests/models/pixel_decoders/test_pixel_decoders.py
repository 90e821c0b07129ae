import pytest
import torch

from mmseg_m2f.models.pixel_decoders import (
    DeformablePixelDecoder,
    FPNPixelDecoder,
    HamburgerPixelDecoder,
    TransformerFPNPixelDecoder,
)
from tests.models.pixel_decoders.maps import R50, SMALL, count, feature_maps

DECODERS = [DeformablePixelDecoder, FPNPixelDecoder, HamburgerPixelDecoder, TransformerFPNPixelDecoder]


@pytest.mark.parametrize(
    ("decoder", "parameters"),
    [
        (DeformablePixelDecoder, 6_035_904),
        (FPNPixelDecoder, 7_540_480),
        (TransformerFPNPixelDecoder, 11_826_688),
        # Squeezing, the factorisation's two convolutions, lateral, output and mask convolutions; norms and biases.
        (HamburgerPixelDecoder, 256 * (3584 + 256 + 256 + 256 + 9 * 256 + 9 * 256) + 512 * 4 + 256 * 2),
    ],
)
def test_pixel_decoder__published_size(decoder, parameters):
    assert count(decoder(R50)) == parameters


@pytest.mark.parametrize("decoder", DECODERS)
def test_pixel_decoder__odd_sizes_keep_the_maps_sizes(decoder):
    features = feature_maps(SMALL, (52, 76))
    mask_features, levels, memory, _ = decoder(SMALL, channels=16, norm_groups=4)(features)
    assert memory.shape[-2:] == (2, 3)
    assert mask_features.shape == (2, 16, 13, 19)
    assert [tuple(x.shape[-2:]) for x in levels] == [(2, 3), (4, 5), (7, 10)]


@pytest.mark.parametrize("decoder", DECODERS)
def test_pixel_decoder__batch_mates_change_nothing(decoder):
    module = decoder(SMALL, channels=32).eval()
    features = feature_maps(SMALL)
    together = module(features)
    alone = module([x[:1] for x in features])
    torch.testing.assert_close(together.mask_features[:1], alone.mask_features, rtol=0, atol=1e-5)
    for both, single in zip(together.levels, alone.levels, strict=True):
        torch.testing.assert_close(both[:1], single, rtol=0, atol=1e-5)
