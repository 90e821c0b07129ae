import pytest
import torch
from torch import nn

from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.models.query_decoders import QueryUpsamplingDecoder
from mmseg_m2f.structures import FeatureSpec

K = 4
SPEC = FeatureSpec((48, 64), (16, 32))
SIZES = [(5, 7), (3, 4)]  # of an image of 80 × 112 pixels


def decoder(crop_size: tuple[int, int] = (80, 112)) -> QueryUpsamplingDecoder:
    """Two layers, 32 channels, 2 heads; weights large enough for scores that differ."""
    built = QueryUpsamplingDecoder(K, SPEC, crop_size=crop_size, num_layers=2, num_heads=2)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built.eval()


def feature_maps(batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, channels, *size) for channels, size in zip(SPEC.channels, SIZES, strict=True)]


def as_torch_layer(layer: nn.Module) -> nn.TransformerDecoderLayer:
    """torch's own post-norm layer with the same weights."""
    reference = nn.TransformerDecoderLayer(32, 2, 128, dropout=0.0, batch_first=True)
    parts = {"self_attn": layer.self_attn.attn, "multihead_attn": layer.cross_attn.attn}
    parts |= {"linear1": layer.ffn.layers[0][0], "linear2": layer.ffn.layers[1]}
    parts |= {f"norm{index + 1}": norm for index, norm in enumerate(layer.norms)}
    state = {f"{name}.{x}": value for name, part in parts.items() for x, value in part.state_dict().items()}
    reference.load_state_dict(state)
    return reference


def test_query_upsampling__cells_look_at_the_maps_finest_first():
    built, maps = decoder(), feature_maps()
    cells = built.cell_feat.weight.expand(2, -1, -1)
    for x, stage in zip(maps, built.upsampling, strict=True):
        tokens = stage.input_proj(x.flatten(2).transpose(1, 2))
        for layer in stage.layers:
            cells = as_torch_layer(layer)(cells, tokens)
    seen = []
    built.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    built(maps)
    torch.testing.assert_close(seen[0], cells)


def test_query_upsampling__each_layer_gives_its_own_scores():
    built, maps = decoder(), feature_maps()
    expected = []

    def keep(attention: nn.Module, inputs: tuple[torch.Tensor, torch.Tensor], _: object) -> None:
        q, k = attention.q(inputs[0]).chunk(2, -1), attention.k(inputs[1]).chunk(2, -1)
        expected.append(sum(a @ b.transpose(1, 2) / 16**0.5 for a, b in zip(q, k, strict=True)) / 2)

    for layer in built.layers:
        layer.cross_attn.register_forward_hook(keep)
    predictions = built(maps)
    assert [tuple(p.class_logits.shape) for p in predictions] == [(2, K, K + 1)] * 2
    assert (predictions[0].class_logits != predictions[1].class_logits).all()
    for prediction, scores in zip(predictions, expected, strict=True):
        torch.testing.assert_close(prediction.mask_logits(), scores.unflatten(-1, (5, 7)))


def test_query_upsampling__last_prediction_alone():
    built, maps = decoder(), feature_maps()
    (result,) = built(maps, last_only=True)
    expected = built(maps)[-1]
    assert result.boxes is None
    assert all(map(torch.equal, result[:3], expected[:3]))


@pytest.mark.parametrize("crop_size", [(160, 160), (40, 64)])
def test_query_upsampling__other_sizes_than_the_crop(crop_size):
    # A table that rises evenly from cell to cell still does so after resizing, away from the border.
    built = decoder(crop_size)
    rows, columns = built.grid_size
    ramp = (torch.arange(columns) + 0.5) / columns
    with torch.no_grad():
        built.cell_feat.weight.copy_(ramp.repeat(rows).unsqueeze(1).expand(-1, 32))
    resized = built._cells((5, 7)).view(5, 7, 32)
    expected = ((torch.arange(7) + 0.5) / 7)[None, :, None].expand(5, -1, 32)
    torch.testing.assert_close(resized[:, 2:5], expected[:, 2:5], atol=0.02, rtol=0)
    assert built(feature_maps(), last_only=True)[0].mask_features.shape == (2, 32, 5, 7)


def test_query_upsampling__cells_without_token_are_not_looked_at():
    built, (fine, coarse) = decoder(), feature_maps()
    spread = torch.full((2, 64, 5, 7), 1e3)
    valid = torch.zeros(2, 5, 7, dtype=torch.bool)
    spread[:, :, ::2, ::2], valid[:, ::2, ::2] = coarse, True
    partial = PartialMaps((fine, spread), (None, valid), torch.zeros(2, 5, 7), patch_size=16)
    usual, found = built([fine, coarse])[-1], built(partial)[-1]
    torch.testing.assert_close(found.class_logits, usual.class_logits)
    torch.testing.assert_close(found.mask_logits(), usual.mask_logits())


def test_query_upsampling__cells_start_as_released_on_demand():
    released = QueryUpsamplingDecoder(K, SPEC, crop_size=320, cell_init="normal")
    assert released.grid_size == (20, 20)
    assert released.cell_feat.weight.mean().item() == pytest.approx(0, abs=0.05)
    assert released.cell_feat.weight.std().item() == pytest.approx(1, abs=0.05)
    assert QueryUpsamplingDecoder(K, SPEC, crop_size=320).cell_feat.weight.abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(crop_size=0), "crop_size: .* got 0"), (dict(crop_size=48, cell_init="zero"), "got 'zero'")],
)
def test_query_upsampling__wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        QueryUpsamplingDecoder(K, SPEC, **options)
