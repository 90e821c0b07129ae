import pytest
import torch

from mmseg_m2f.models.backbones import TimmPlainViT
from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.models.necks import FrozenEncoderBlocks
from mmseg_m2f.models.query_decoders import EncoderMaskDecoder
from mmseg_m2f.structures import FeatureSpec, TokenStream


def size(*parts: torch.nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


@pytest.mark.parametrize(("width", "expected"), [(384, 7_688_966), (768, 30_418_310), (1024, 53_927_046)])
def test_frozen_encoder_blocks__decoder_has_the_parameters_of_the_release(width, expected):
    with torch.device("meta"):
        neck = FrozenEncoderBlocks(width)
        decoder = EncoderMaskDecoder(133, FeatureSpec((width,), (16,), num_joint_blocks=6), num_queries=200)
    norms = size(*(lateral.norm for lateral in neck.laterals))
    assert (size(neck, decoder) - norms, norms) == (expected, 8 * width)


def test_frozen_encoder_blocks__parameters_of_its_parts():
    with torch.device("meta"):
        neck = FrozenEncoderBlocks(1024)
    assert {size(lateral.mlp) for lateral in neck.laterals} == {1_050_112}
    assert {size(block) for block in neck.blocks} == {6_302_720}
    assert {block.attn.num_heads for block in neck.blocks} == {16}


def stream(num_maps: int = 4) -> TokenStream:
    tokens = tuple(torch.randn(2, 5 + 6, 32) for _ in range(num_maps))
    return TokenStream(tokens[-1], (2, 3), 5, (), torch.nn.Identity(), tokens)


def test_frozen_encoder_blocks__sum_of_the_laterals():
    neck, inputs = FrozenEncoderBlocks(32, num_heads=2).eval(), stream()
    for lateral in neck.laterals:
        torch.nn.init.normal_(lateral.scale)
        torch.nn.init.normal_(lateral.norm.weight)
    expected = 0
    for lateral, x in zip(neck.laterals, inputs.side_tokens, strict=True):
        normed = x * lateral.norm.weight / (1 + lateral.norm.eps) ** 0.5  # statistics of a new batch norm
        expected = expected + lateral.scale * (normed + lateral.mlp(normed))
    torch.testing.assert_close(neck(inputs).tokens, expected)


def test_frozen_encoder_blocks__without_effect_the_blocks_leave_the_tokens():
    neck, queries = FrozenEncoderBlocks(32, num_heads=2), torch.randn(2, 7, 32)
    for block in neck.blocks:
        torch.nn.init.zeros_(block.scale1)
        torch.nn.init.zeros_(block.scale2)
    found = neck(stream())
    tokens = torch.cat([queries, found.tokens], 1)
    for block in found.blocks:
        tokens = block(tokens, torch.ones(2, 1, 18, 18, dtype=torch.bool))
    assert torch.equal(tokens[:, 7:], found.tokens)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch14_reg4_dinov2"])
def test_frozen_encoder_blocks__seven_predictions_and_no_graph_in_the_encoder(name):
    options = dict(embed_dim=32, depth=4, num_heads=4, drop_path_rate=0.5)
    backbone = TimmPlainViT(
        name, out_indices=range(4), as_tokens=True, norm=True, frozen=True, img_size=(64, 64), model_options=options
    ).train()
    neck = FrozenEncoderBlocks(32, num_heads=2)
    spec = probe_feature_spec(backbone, lambda images: neck(backbone(images)))
    assert spec == FeatureSpec((32,), (16,), num_joint_blocks=6)
    decoder = EncoderMaskDecoder(5, spec, num_queries=7).train()
    inputs = backbone(torch.randn(2, 3, 32, 48))
    assert not any(x.requires_grad for x in inputs.side_tokens)
    predictions = decoder(neck(inputs))
    assert len(predictions) == 7
    sum(x.class_logits.sum() + x.mask_logits().square().sum() for x in predictions).backward()
    assert [name for name, p in [*neck.named_parameters(), *decoder.named_parameters()] if p.grad is None] == []


@pytest.mark.parametrize("inputs", [stream(3), [torch.randn(1, 32, 2, 3)]])
def test_frozen_encoder_blocks__tokens_that_it_does_not_get(inputs):
    found = 3 if isinstance(inputs, TokenStream) else 0
    with pytest.raises(ValueError, match=f"expected the tokens of 4 blocks .*got those of {found}.*as_tokens"):
        FrozenEncoderBlocks(32, num_heads=2)(inputs)
