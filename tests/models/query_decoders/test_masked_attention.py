import pytest
import torch

from mmseg_m2f.models.query_decoders import MaskedAttentionDecoder
from mmseg_m2f.structures import PixelFeatures, PixelSpec

SIZES = [(2, 3), (4, 6), (8, 12)]


def pixel_features(channels: int = 16, batch: int = 2) -> PixelFeatures:
    levels = tuple(torch.randn(batch, channels, *size) for size in SIZES)
    return PixelFeatures(torch.randn(batch, 16, 16, 24), levels, levels[0])


def small_decoder(channels: int = 16, **options: int) -> MaskedAttentionDecoder:
    sizes = dict(num_queries=7, channels=16, num_layers=4, num_heads=4, feedforward_channels=32) | options
    return MaskedAttentionDecoder(3, PixelSpec(16, (channels,) * 3, channels), **sizes).eval()


def test_masked_attention__one_prediction_more_than_layers():
    predictions = small_decoder()(pixel_features())
    assert len(predictions) == 5
    assert predictions[0].class_logits.shape == (2, 7, 4)
    assert predictions[0].mask_logits().shape == (2, 7, 16, 24)


def test_masked_attention__last_only_is_the_last():
    decoder, features = small_decoder(), pixel_features()
    (result,) = decoder(features, last_only=True)
    expected = decoder(features)[-1]
    assert torch.equal(result.class_logits, expected.class_logits)
    assert torch.equal(result.mask_embeddings, expected.mask_embeddings)


def test_masked_attention__published_size():
    decoder = MaskedAttentionDecoder(133, PixelSpec(256, (256,) * 3, 256))
    assert sum(p.numel() for p in decoder.parameters()) == 14_493_062


def test_masked_attention__query_order_changes_nothing():
    decoder, features, order = small_decoder(), pixel_features(), torch.randperm(7)
    expected = decoder(features)[-1].mask_logits()[:, order]
    for table in (decoder.query_feat, decoder.query_embed):
        table.weight.data = table.weight.data[order]
    torch.testing.assert_close(decoder(features)[-1].mask_logits(), expected)


def test_masked_attention__other_channels_are_projected():
    assert len(small_decoder(channels=8)(pixel_features(8))) == 5


def test_masked_attention__all_masks_negative_stays_finite():
    decoder = small_decoder()
    features = pixel_features()
    decoder.mask_embed[-1].weight.data.zero_()
    decoder.mask_embed[-1].bias.data.fill_(-1.0)
    features = features._replace(mask_features=features.mask_features.abs() + 0.1)
    predictions = decoder(features)
    assert (predictions[0].mask_logits() < 0).all()
    assert predictions[-1].class_logits.isfinite().all()


def test_masked_attention__a_query_sees_only_its_mask():
    decoder, features = small_decoder(num_layers=1), pixel_features()
    mask_logits = torch.nn.functional.interpolate(
        decoder(features)[0].mask_logits(), SIZES[0], mode="bilinear", align_corners=False
    )
    outside = (mask_logits[:, 0] < 0).unsqueeze(1)
    assert outside.any()
    assert not outside.all()
    moved = torch.where(outside, features.levels[0] + 10.0, features.levels[0])
    position = decoder.query_embed.weight
    # Without self-attention the other queries cannot carry what they saw to the first one.
    layer = decoder.transformer_decoder.layers[0]
    results = []
    for level in (features.levels[0], moved):
        values, keys = decoder._values_and_keys([level, *features.levels[1:]], SIZES)
        small = decoder._mask_features_per_level(features.mask_features, SIZES)[0]
        queries = decoder.query_feat.weight.expand(2, -1, -1)
        embeddings = decoder.mask_embed(decoder.transformer_decoder.post_norm(queries))
        may_attend = decoder._may_attend(embeddings, small)
        results.append(layer.cross_attn(queries + position, keys[0], values[0], may_attend)[:, 0])
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("channels", [16, 8])
def test_masked_attention__every_parameter_learns(channels):
    decoder = small_decoder(channels=channels).train()
    predictions = decoder(pixel_features(channels))
    sum(p.class_logits.sum() + p.mask_logits().square().sum() for p in predictions).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("num_layers", [1, 3])
def test_masked_attention__fewer_layers_are_those_of_a_shorter_decoder(num_layers):
    decoder, features = small_decoder(), pixel_features()
    shorter = small_decoder(num_layers=num_layers)
    missing = shorter.load_state_dict(decoder.state_dict(), strict=False).missing_keys
    assert missing == []
    (result,) = decoder(features, last_only=True, num_layers=num_layers)
    (expected,) = shorter(features, last_only=True)
    assert torch.equal(result.class_logits, expected.class_logits)
    assert torch.equal(result.mask_embeddings, expected.mask_embeddings)


def test_masked_attention__fewer_queries_are_the_surest_before_any_layer():
    decoder, features = small_decoder(), pixel_features()
    surest = decoder(features)[0].class_logits[0].softmax(-1)[:, :-1].amax(-1).argsort(descending=True)[:3]
    fewer = small_decoder(num_queries=3)
    kept = {name: value for name, value in decoder.state_dict().items() if not name.startswith("query_")}
    fewer.load_state_dict(kept, strict=False)
    for table in ("query_feat", "query_embed"):
        getattr(fewer, table).weight.data = getattr(decoder, table).weight.data[surest.sort().values]
    (result,) = decoder(features, last_only=True, num_queries=3)
    torch.testing.assert_close(result.class_logits, fewer(features)[-1].class_logits)
    torch.testing.assert_close(result.mask_logits(), fewer(features)[-1].mask_logits())
