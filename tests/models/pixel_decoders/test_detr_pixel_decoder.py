import torch

from mmseg_m2f.models.pixel_decoders import DetrPixelDecoder
from tests.models.pixel_decoders.maps import SMALL, feature_maps


def build() -> DetrPixelDecoder:
    return DetrPixelDecoder(SMALL, channels=16, num_layers=2, num_heads=4, feedforward_channels=32).eval()


def test_detr_pixel_decoder__finer_maps_are_returned_unchanged():
    decoder, features = build(), feature_maps(SMALL)
    found = decoder(features)
    assert decoder.spec.levels == (24, 16, 8)
    assert all(level is x for level, x in zip(found.levels, features[2::-1], strict=True))
    torch.testing.assert_close(found.mask_features, decoder.input_proj(features[-1]))


def test_detr_pixel_decoder__padding_changes_nothing():
    decoder, features = build(), feature_maps(SMALL)
    valid = torch.ones(2, 2, 3, dtype=torch.bool)
    valid[..., -1] = False
    expected = decoder(features, valid).memory[..., :-1]
    features[-1][..., -1] = 100.0
    torch.testing.assert_close(decoder(features, valid).memory[..., :-1], expected)
