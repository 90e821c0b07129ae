import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mmseg_m2f.models.pixel_decoders import (
    DeformablePixelDecoder,
    FPNPixelDecoder,
    HamburgerPixelDecoder,
    TransformerFPNPixelDecoder,
)
from mmseg_m2f.structures import FeatureSpec

R50 = FeatureSpec((256, 512, 1024, 2048), (4, 8, 16, 32))
DECODERS = [DeformablePixelDecoder, FPNPixelDecoder, HamburgerPixelDecoder, TransformerFPNPixelDecoder]
SMALL = FeatureSpec((8, 16, 24, 32), (4, 8, 16, 32))


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def feature_maps(spec: FeatureSpec, size: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
    height, width = size
    levels = zip(spec.channels, spec.strides, strict=True)
    return [torch.randn(2, c, -(-height // stride), -(-width // stride)) for c, stride in levels]


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
    torch.manual_seed(0)  # of the factorisation's bases
    together = module(features)
    torch.manual_seed(0)
    alone = module([x[:1] for x in features])
    torch.testing.assert_close(together.mask_features[:1], alone.mask_features, rtol=0, atol=1e-5)
    for both, single in zip(together.levels, alone.levels, strict=True):
        torch.testing.assert_close(both[:1], single, rtol=0, atol=1e-5)


def test_deformable__too_few_maps():
    with pytest.raises(ValueError, match="num_levels is 3, but the backbone returns only 2 maps"):
        DeformablePixelDecoder(FeatureSpec((8, 16), (8, 16)))


def test_deformable__two_finer_maps_take_two_fpn_steps():
    spec = FeatureSpec((4, 8, 16, 24, 32), (2, 4, 8, 16, 32))
    mask_features, levels, *_ = DeformablePixelDecoder(spec, channels=32)(feature_maps(spec))
    assert mask_features.shape[-2:] == (32, 48)
    assert len(levels) == 3


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
    torch.manual_seed(0)
    expected = head(features)
    torch.manual_seed(0)
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
    with pytest.raises(ValueError, match="the backbone returns one map"):
        HamburgerPixelDecoder(FeatureSpec((8,), (16,)))


MMDET_FPN = dict(
    type="mmdet.PixelDecoder",
    in_channels=SMALL.channels,
    feat_channels=32,
    out_channels=32,
    norm_cfg=dict(type="GN", num_groups=32),
    act_cfg=dict(type="ReLU"),
)
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


@pytest.mark.parity
@pytest.mark.parametrize(
    ("config", "ours"),
    [
        (MMDET_FPN, FPNPixelDecoder(SMALL, channels=32)),
        (
            MMDET_TRANSFORMER_FPN,
            TransformerFPNPixelDecoder(SMALL, channels=32, num_layers=2, feedforward_channels=64),
        ),
    ],
)
def test_pixel_decoder__equals_mmdet(config, ours):
    theirs = MODELS.build(ConfigDict(config)).eval()
    ours.load_state_dict(theirs.state_dict())
    features = feature_maps(SMALL)
    metas = [dict(batch_input_shape=(64, 96), img_shape=(64, 96))] * 2
    with torch.no_grad():
        expected, _ = theirs(features, metas)
        actual = ours.eval()(features).mask_features
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


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
