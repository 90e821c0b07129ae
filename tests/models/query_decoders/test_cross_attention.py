import pytest
import torch

from mmseg_m2f.models.query_decoders import CrossAttentionDecoder
from mmseg_m2f.structures import PixelFeatures, PixelSpec


def pixel_features(memory_channels: int = 16, batch: int = 2) -> PixelFeatures:
    memory = torch.randn(batch, memory_channels, 3, 4)
    return PixelFeatures(torch.randn(batch, 16, 24, 32), (memory,), memory)


def small_decoder(memory_channels: int = 16, **options: object) -> CrossAttentionDecoder:
    sizes = dict(num_queries=7, channels=16, num_layers=3, num_heads=4, feedforward_channels=32) | options
    spec = PixelSpec(16, (memory_channels,), memory_channels)
    return CrossAttentionDecoder(3, spec, **sizes).eval()


def test_cross_attention__one_prediction_per_layer():
    predictions = small_decoder()(pixel_features())
    assert len(predictions) == 3
    assert predictions[-1].class_logits.shape == (2, 7, 4)
    assert predictions[-1].mask_logits().shape == (2, 7, 24, 32)


def test_cross_attention__last_only_is_the_last():
    decoder, features = small_decoder(), pixel_features()
    (result,) = decoder(features, last_only=True)
    assert torch.equal(result.mask_embeddings, decoder(features)[-1].mask_embeddings)


@pytest.mark.parametrize(("num_classes", "memory", "expected"), [(150, 2048, 10_259_351), (133, 256, 9_730_438)])
def test_cross_attention__published_size(num_classes, memory, expected):
    decoder = CrossAttentionDecoder(num_classes, PixelSpec(256, (256,), memory))
    assert sum(p.numel() for p in decoder.parameters()) == expected


@pytest.mark.parametrize(("channels", "enforce", "projected"), [(16, False, False), (16, True, True), (8, False, True)])
def test_cross_attention__memory_is_projected_where_needed(channels, enforce, projected):
    decoder = small_decoder(channels, enforce_projection=enforce)
    assert isinstance(decoder.decoder_input_proj, torch.nn.Conv2d) == projected
    assert decoder(pixel_features(channels))[-1].class_logits.isfinite().all()


def test_cross_attention__query_order_changes_nothing():
    decoder, features, order = small_decoder(), pixel_features(), torch.randperm(7)
    expected = decoder(features)[-1].mask_logits()[:, order]
    decoder.query_embed.weight.data = decoder.query_embed.weight.data[order]
    torch.testing.assert_close(decoder(features)[-1].mask_logits(), expected)


def test_cross_attention__every_parameter_learns():
    decoder = small_decoder(8).train()
    predictions = decoder(pixel_features(8))
    sum(p.class_logits.sum() + p.mask_logits().square().sum() for p in predictions).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_cross_attention__fewer_layers():
    decoder, features = small_decoder(), pixel_features()
    (result,) = decoder(features, last_only=True, num_layers=2)
    assert torch.equal(result.class_logits, decoder(features)[1].class_logits)
