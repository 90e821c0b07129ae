import pytest
import torch
from torch import nn

from mmseg_m2f.models.pixel_decoders import DetrPixelDecoder
from mmseg_m2f.models.query_decoders import BoxDecoder
from mmseg_m2f.structures import FeatureSpec, PixelFeatures

SPEC = FeatureSpec((8, 16, 24, 32), (4, 8, 16, 32))
SMALL = dict(num_layers=2, num_heads=4, feedforward_channels=32, dropout=0.0)
MASK_HEAD = dict(type="mmseg_m2f.DetrMaskHead", num_heads=8)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def small_detr(**options: object) -> tuple[DetrPixelDecoder, BoxDecoder]:
    pixel_decoder = DetrPixelDecoder(SPEC, channels=128, **SMALL)
    decoder = BoxDecoder(3, pixel_decoder.spec, **SMALL | dict(num_queries=7) | options)
    return pixel_decoder.eval(), decoder.eval()


def feature_maps(batch: int = 2, size: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
    maps = zip(SPEC.channels, SPEC.strides, strict=True)
    return [torch.randn(batch, c, size[0] // stride, size[1] // stride) for c, stride in maps]


def test_detr__published_sizes():
    pixel_decoder = DetrPixelDecoder(FeatureSpec((2048,), (32,)))
    assert count(pixel_decoder.encoder) == 6 * 1_315_072
    decoder = BoxDecoder(80, pixel_decoder.spec)
    assert count(decoder.transformer_decoder.layers) == 6 * 1_578_752
    tensors = [*pixel_decoder.state_dict(), *decoder.state_dict()]
    assert len(tensors) == 193
    backbone_r50 = 23_508_032  # torchvision's ResNet-50 without its classifier
    assert (count(pixel_decoder, decoder) + backbone_r50) / 1e6 == pytest.approx(41.58, abs=0.03)


def test_box_decoder__predictions_of_every_layer():
    pixel_decoder, decoder = small_detr()
    features = pixel_decoder(feature_maps())
    predictions = decoder(features)
    assert [tuple(p.class_logits.shape) for p in predictions] == [(2, 7, 4)] * 2
    assert all(((p.boxes > 0) & (p.boxes < 1)).all() for p in predictions)
    (result,) = decoder(features, last_only=True)
    assert torch.equal(result.boxes, predictions[-1].boxes)


@pytest.mark.parametrize("garbage", [0.0, 1e3])
def test_detr__padding_changes_nothing(garbage):
    pixel_decoder, decoder = (module.double() for module in small_detr(mask_head=MASK_HEAD))
    maps = [x.double() for x in feature_maps(batch=1)]
    padded = [torch.full((1, x.shape[1], x.shape[2] + 3, x.shape[3] + 2), garbage).double() for x in maps]
    for small, large in zip(maps, padded, strict=True):
        large[:, :, : small.shape[2], : small.shape[3]] = small
    valid = torch.zeros(1, *padded[-1].shape[-2:], dtype=torch.bool)
    valid[:, :2, :3] = True
    expected = decoder(pixel_decoder(maps))[-1]
    features = pixel_decoder(padded, valid)
    actual = decoder(features)[-1]
    torch.testing.assert_close(actual.class_logits, expected.class_logits)
    torch.testing.assert_close(actual.boxes, expected.boxes)
    attention = decoder.mask_head.attend(torch.randn(1, 7, 128).double(), features.memory, valid)
    assert (attention[..., 2:, :] == 0).all()
    assert (attention[..., 3:] == 0).all()


def test_detr_mask_head__masks_of_chosen_queries_are_those_of_all():
    pixel_decoder, decoder = small_detr(mask_head=MASK_HEAD, num_queries=30)
    (prediction,) = decoder(pixel_decoder(feature_maps()), last_only=True)
    with torch.no_grad():  # in chunks
        everything = prediction.mask_logits()
    chosen = prediction.mask_logits_of(torch.tensor([1, 1, 0]), torch.tensor([3, 29, 0]))  # at once
    assert everything.shape == (2, 30, 16, 24)
    torch.testing.assert_close(chosen, everything[[1, 1, 0], [3, 29, 0]], rtol=0, atol=1e-5)


def test_detr_mask_head__no_pair_keeps_the_parameters_in_the_graph():
    pixel_decoder, decoder = small_detr(mask_head=MASK_HEAD)
    (prediction,) = decoder(pixel_decoder(feature_maps()), last_only=True)
    nothing = prediction.mask_logits_of(*torch.zeros(2, 0, dtype=torch.long))
    assert nothing.shape == (0, 16, 24)
    nothing.sum().backward()
    assert [name for name, p in decoder.mask_head.named_parameters() if p.grad is None] == []


def test_box_decoder__only_the_last_layer_has_masks():
    pixel_decoder, decoder = small_detr(mask_head=MASK_HEAD)
    first, last = decoder(pixel_decoder(feature_maps()))
    assert (first.has_masks, last.has_masks) == (False, True)
    with pytest.raises(ValueError, match="has no mask head"):
        first.mask_logits()


def test_box_decoder__queries_start_as_zeros():
    # With all attention and feed-forward weights at zero, what is left is the norms of zeros: the same for all queries.
    _, decoder = small_detr()
    for name, parameter in decoder.transformer_decoder.named_parameters():
        if "norm" not in name:
            nn.init.zeros_(parameter)
    memory = torch.randn(1, 128, 2, 3)
    (prediction,) = decoder(PixelFeatures(memory, (), memory), last_only=True)
    assert (prediction.boxes == prediction.boxes[:, :1]).all()


def test_detr__fewer_layers():
    pixel_decoder, decoder = small_detr()
    features = pixel_decoder(feature_maps())
    (result,) = decoder(features, last_only=True, num_layers=1)
    assert torch.equal(result.boxes, decoder(features)[0].boxes)
