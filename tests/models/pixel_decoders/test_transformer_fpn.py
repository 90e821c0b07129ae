import pytest
import torch

from mmseg_m2f.models.pixel_decoders import TransformerFPNPixelDecoder
from tests.models.pixel_decoders.maps import SMALL, feature_maps
from tests.models.pixel_decoders.test_fpn import MMDET_FPN, assert_equals_mmdet

MMDET_TRANSFORMER_FPN = MMDET_FPN | dict(
    type="mmdet.TransformerEncoderPixelDecoder",
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=32, num_heads=8, dropout=0.1, batch_first=True),
            ffn_cfg=dict(embed_dims=32, feedforward_channels=64, num_fcs=2, ffn_drop=0.1, act_cfg=dict(type="ReLU")),
        ),
    ),
    positional_encoding=dict(num_feats=16, normalize=True),
)


def build() -> TransformerFPNPixelDecoder:
    return TransformerFPNPixelDecoder(SMALL, channels=32, num_layers=2, feedforward_channels=64)


@pytest.mark.parity
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_transformer_fpn__equals_mmdet(padding):
    """Also where the images of a batch differ in size."""
    assert_equals_mmdet(MMDET_TRANSFORMER_FPN, build(), padding=padding)


def test_transformer_fpn__padding_changes_nothing():
    decoder, features = build().eval(), feature_maps(SMALL)
    valid = torch.ones(2, 2, 3, dtype=torch.bool)
    valid[..., -1] = False
    expected = decoder(features, valid).memory[..., :-1]
    features[-1][..., -1] = 100.0
    torch.testing.assert_close(decoder(features, valid).memory[..., :-1], expected)
